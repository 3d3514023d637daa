"""Draw what the pipeline makes of some training refs: sentence, photo, response map, pseudo mask, mask of stage 2."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import numpy as np

from dataset.artifacts import read_map, read_mask
from dataset.datasets import DATA_SETS, load_splits
from dataset.photos import read_photo
from model import load_model
from utils.options import Parser, add_data_set_options, positive_int
from utils.pictures import contact_sheet, heat_overlay, mask_overlay, save_png, spread, text_tile

EXAMPLE = (
    "python scripts/pipeline_picture.py --dataset refcocog --splitBy umd --refer_data_root data/toy --output output/toy"
)
HEADINGS = ("sentence", "photo", "response map", "pseudo mask", "mask")
TILE = 200  # pixels


def main() -> None:
    parser = Parser("Draw what the pipeline makes of some training refs, taken at even intervals.", EXAMPLE)
    add_data_set_options(parser, tuple(DATA_SETS))
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="the OUTPUT of run_pipeline.sh")
    parser.add_argument("--count", type=positive_int, default=3, help="how many refs")
    parser.add_argument("--picture", type=Path, default=Path("figs/pipeline.png"), metavar="FILE", help="the picture")
    args = parser.parse_args()
    split = load_splits(args.dataset, args.data_root, args.split_by, ["train"])["train"]
    segmenter = load_model(args.output / "stage2" / "ckpt.pth")
    rows = []
    for reference in spread(split.references, args.count):
        photo, sentence = np.array(read_photo(split.photo_path(reference))), reference.sentences[0]
        response = heat_overlay(photo, read_map(args.output / "cam", reference.name))
        pseudo_mask = mask_overlay(photo, read_mask(args.output / "ins_seg", reference.name))
        mask = mask_overlay(photo, segmenter.segment(photo, [sentence])[0])
        rows.append([text_tile(sentence, TILE), photo, response, pseudo_mask, mask])
    save_png(args.picture, contact_sheet(rows, tile=TILE, headings=HEADINGS))
    print(args.picture)


if __name__ == "__main__":
    run_script(main)
