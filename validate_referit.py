"""Evaluate a checkpoint on ReferIt: validate.py with that data set's folder and split as defaults.

python validate_referit.py --test_split test --output weights/ --resume --pretrain stage1_referit.pth --eval
"""

from dataset.known import DATA_SETS
from dataset.loading import DATASETS
from model.validation import validate
from utils.errors import run_script
from utils.options import Parser, add_data_options, add_evaluation_options, add_network_options


def main() -> None:
    parser = Parser(
        "Evaluate a checkpoint of either stage on ReferIt.",
        "python validate_referit.py --test_split test --output weights/ --resume --pretrain stage1_referit.pth --eval",
    )
    add_data_options(parser, DATASETS, test_split=["test"])
    add_network_options(parser)
    add_evaluation_options(parser)
    parser.set_defaults(dataset="referit", data_root=DATA_SETS["referit"].root)
    validate(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
