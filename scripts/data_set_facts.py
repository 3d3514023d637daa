"""Print what run_pipeline.sh needs to know about a data set: python scripts/data_set_facts.py DATASET SPLIT_BY

One line: its data folder, the folder of its photos below that, 1 where its train split has masks to compare with and 0
elsewhere, and the splits to evaluate.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

from dataset.datasets import DATA_SETS, known_splits


def main() -> None:
    splits = [split for split in known_splits(*sys.argv[1:]) if split != "train"]
    data_set = DATA_SETS[sys.argv[1]]
    print(data_set.root, data_set.photos, int(data_set.annotated), ",".join(splits))


if __name__ == "__main__":
    run_script(main)
