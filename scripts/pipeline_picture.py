"""Draw what the pipeline makes of some training refs: sentence, photo, response map, pseudo mask, mask of stage 2.

python scripts/pipeline_picture.py --dataset refcocog --splitBy umd --refer_data_root data/toy --output output/toy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from dataset.artifacts import read_map, read_mask
from dataset.known import CAM, INS_SEG
from dataset.loading import DATASETS, load_splits
from dataset.photos import read_photo
from model import load_model
from utils.checkpoint import BEST_MIOU
from utils.errors import UserError, run_script
from utils.options import Parser, add_data_set_options, positive_int
from utils.pictures import contact_sheet, heat_overlay, mask_overlay, save_png, spread, text_tile

TILE = 200  # pixels


def main() -> None:
    parser = Parser(
        "Draw what the pipeline makes of some training refs.",
        "python scripts/pipeline_picture.py --dataset refcocog --splitBy umd --refer_data_root data/toy "
        "--output output/toy",
    )
    add_data_set_options(parser, DATASETS)
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="of scripts/run_pipeline.sh")
    parser.add_argument("--refs", nargs="+", type=int, metavar="REF_ID", help="which refs (default: evenly spread)")
    parser.add_argument("--count", type=positive_int, default=3, help="how many, without --refs")
    parser.add_argument("--picture", type=Path, default=Path("figs/pipeline.png"), metavar="FILE", help="the picture")
    args = parser.parse_args()
    split = load_splits(args.dataset, args.data_root, args.split_by, ["train"])["train"]
    chosen = [reference for reference in split.references if reference.ref_id in (args.refs or ())]
    if args.refs and len(chosen) < len(args.refs):
        raise UserError(f"the train split has {len(chosen)} of the refs {args.refs}; name others")
    segmenter = load_model(args.output / "stage2" / BEST_MIOU)
    rows = []
    for reference in chosen or spread(split.references, args.count):
        photo, sentence = np.array(read_photo(split.photo_path(reference))), reference.sentences[0]
        response = heat_overlay(photo, read_map(args.output / CAM, reference.name))
        masks = [read_mask(args.output / INS_SEG, reference.name), segmenter.segment(photo, [sentence])[0]]
        rows.append([text_tile(sentence, TILE), photo, response, *(mask_overlay(photo, mask) for mask in masks)])
    save_png(args.picture, contact_sheet(rows, tile=TILE))
    print(args.picture)


if __name__ == "__main__":
    run_script(main)
