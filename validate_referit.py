"""Evaluate a checkpoint on ReferIt: validate.py with that data set's folder and split as defaults.

python validate_referit.py --test_split test --output weights/ --resume --pretrain stage1_referit.pth --eval
"""

from utils.start import run_script

from dataset.datasets import DATA_SETS
from validate import build_parser, validate


def main() -> None:
    parser = build_parser(__doc__, test_split="test")
    parser.set_defaults(dataset="referit", data_root=DATA_SETS["referit"].root)
    validate(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
