"""Make pseudo masks with SAM 2, which has been trained with masks: from response maps, or from IRNet's masks and maps.

bash scripts/make_pseudo_masks.sh refcocog umd --cutter irnet+sam   # calls this script with the folders' names
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import argparse

import numpy as np

from dataset.artifacts import instances_path, png_path, read_mask, write_mask
from dataset.passes import make_files
from dataset.photos import at_size
from IRNet.data import map_fingerprint, photos_of
from IRNet.make_ins_seg import show_pseudo_masks
from model.refine import Cutter, Sam, refine
from utils.distributed import barrier, init_processes, is_main
from utils.errors import UserError
from utils.files import lock_folder
from utils.log import log
from utils.options import DEFAULT_SAM, Parser, add_workers_option
from utils.resume import fingerprint, start_pass

KEPT = "kept"  # what became of a ref whose mask at hand stays


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = partial(parser.add_argument, type=Path, metavar="FOLDER")
    parser.add_argument("--train_list", type=Path, required=True, metavar="FILE", help="names of the refs (in)")
    add("--cam_out_dir", required=True, help="response maps (in)")
    add("--irnet_masks", help="IRNet's pseudo masks (in), which stay where no cut agrees better with the map")
    add("--ins_seg_out_dir", required=True, help="pseudo masks (out)")
    add("--work_space", default=Path("output_refer"), help="stamp and report (out)")
    add("--image_root", default=Path("data/train2014"), help="folder of the photos")
    words = f"a name on Hugging Face's hub, or a folder (default: {DEFAULT_SAM})"
    parser.add_argument("--sam", default=DEFAULT_SAM, metavar="NAME", help=words)
    add_workers_option(parser)
    parser.add_argument("--resume", action="store_true", help="keep the masks that an interrupted run has made")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = init_processes()
    photos, mask_dir = photos_of(args.train_list, args.image_root), args.ins_seg_out_dir
    names = [name for _, refs in photos for name in refs]
    made_from = {"SAM": args.sam, "response maps": map_fingerprint(photos, args.cam_out_dir)}
    if args.irnet_masks:
        made_from["IRNet's masks"] = fingerprint(png_path(args.irnet_masks, name) for name in names)
    cutter = Sam(args.sam, device)
    with lock_folder(args.work_space, main=is_main()):
        old = [path(mask_dir, name) for name in names for path in (png_path, instances_path)]
        start_pass(args.work_space / "cut_pseudo_masks.json", made_from, old, args.resume)
        make = partial(cut, mask_dir=mask_dir, source=args.irnet_masks, cutter=cutter)
        last = partial(png_path, mask_dir)
        outcomes = make_files("cut_pseudo_masks", photos, args.cam_out_dir, make, last, device, args.num_workers)
        log(f"cut_pseudo_masks: {outcomes.count(KEPT)} masks stayed as they were: no cut agreed better with the map")
        show_pseudo_masks(photos, args.cam_out_dir, None, mask_dir, args.work_space)
        barrier()


def cut(
    photo: np.ndarray,
    responses: dict[str, np.ndarray],
    size: tuple[int, int],
    mask_dir: Path,
    source: Path | None,
    cutter: Cutter,
) -> Iterator[tuple[str, bool | str | UserError]]:
    """Write the cut masks of a photo's refs, see `make_files`; the outcome is `KEPT` where the mask at hand stays.

    That is IRNet's in the folder `source` or, without it, stage 1's: where the response is positive.
    """
    masks = {}
    for name, response in responses.items():
        try:
            masks[name] = read_mask(source, name, photo.shape[:2]) if source else response > 0
        except UserError as error:
            yield name, error
    given = [responses[name] for name in masks], [*masks.values()], range(len(masks))
    refined = refine(cutter, cutter.encode(photo), *given)
    for (name, mask), found in zip(masks.items(), refined, strict=True):
        write_mask(mask_dir, name, at_size(found, size))
        yield name, bool(found.any()) and (KEPT if found is mask else True)


if __name__ == "__main__":
    run_script(main, lasting=True)
