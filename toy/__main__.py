"""Draw the toy world.

python -m toy --output data/toy
python -m toy --output data/toy_referit --layout referit
python -m toy --output data/toy_absent --layout grefcoco     # with sentences of two objects, and of what is not there
"""

from utils.start import run_script

import argparse
from pathlib import Path

from toy.layouts import LAYOUTS
from toy.photos import make_photos
from utils.options import Parser, non_negative_int, positive_int


def parse_args() -> argparse.Namespace:
    parser = Parser("Draw the toy world.", "python -m toy --output data/toy", prog="toy")
    parser.add_argument("--output", type=Path, default=Path("data/toy"), help="folder to write to")
    parser.add_argument("--layout", choices=LAYOUTS, default="refcocog", help="data set whose files to write")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="each seed draws a different world")
    parser.add_argument("--train_scenes", type=positive_int, default=300, help="number of photos to train on")
    parser.add_argument("--val_scenes", type=positive_int, default=40, help="number of photos in the val split")
    parser.add_argument("--test_scenes", type=positive_int, default=100, help="number of photos in the test split")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = {"train": args.train_scenes, "val": args.val_scenes, "test": args.test_scenes}
    photos, refs = LAYOUTS[args.layout](args.output, make_photos(args.seed, counts))
    print(f"{args.output}: {photos} photos, {refs} refs in the layout of {args.layout}")


if __name__ == "__main__":
    run_script(main)
