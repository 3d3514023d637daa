"""The ablation's table from the results that scripts/ablation.sh left: python scripts/ablation_table.py OUTPUT"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.errors import run_script
from utils.files import read_json, write_json
from utils.log import figures_table

ROWS = {  # what the table says -> (variant, row of its results without the split)
    "untrained": ("whole", "untrained"),
    "classification": ("classification", "stage1"),
    "+ calibration": ("calibration", "stage1"),
    "+ bilateral prompt": ("whole", "stage1"),
    "train, without PRMS": ("whole", "stage1_train"),
    "train, with PRMS": ("whole", "stage1_prms_train"),
    "train, pseudo masks": ("whole", "pseudo_masks_train"),
    "stage 2": ("whole", "stage2"),
}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("ablation_table.py: give the output folder of scripts/ablation.sh")
    output = Path(sys.argv[1])
    results = {
        variant: read_json(output / variant / "results.json", "run scripts/ablation.sh first")
        for variant in ("classification", "calibration", "whole")
    }
    table = {}
    for title, (variant, row) in ROWS.items():
        for name, figures in results[variant].items():
            if name == row or name in (f"{row}_{split}" for split in ("val", "test", "testA", "testB")):
                table[title + name.removeprefix(row).replace("_", ", ")] = figures
    write_json(output / "ablation.json", table, indent=2)
    print(figures_table(table))


if __name__ == "__main__":
    run_script(main)
