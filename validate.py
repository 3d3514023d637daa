"""Evaluate a checkpoint, of either stage, and export its response maps.

    python validate.py --dataset refcocog --splitBy umd --test_split val --output weights/ --resume \
        --pretrain stage1_refcocog_umd.pth --eval
"""

from dataset.loading import DATASETS
from model.validation import validate
from utils.errors import run_script
from utils.options import Parser, add_data_options, add_evaluation_options, add_network_options


def main() -> None:
    parser = Parser(
        "Evaluate a checkpoint of either stage; with --cam_save_dir export a response map for each ref.",
        "python validate.py --dataset refcocog --splitBy umd --test_split val --output weights/ --resume "
        "--pretrain stage1_refcocog_umd.pth --eval",
    )
    add_data_options(parser, DATASETS, test_split=["val"])
    add_network_options(parser)
    add_evaluation_options(parser)
    validate(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
