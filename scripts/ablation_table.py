"""The ablation's table from the results that scripts/ablation.sh left: python scripts/ablation_table.py OUTPUT WHOLE"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.errors import run_script
from utils.files import read_json, write_json
from utils.log import figures_table
from utils.options import Parser

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
    parser = Parser("The ablation's table.", "python scripts/ablation_table.py output/toy_ablation output/toy")
    parser.add_argument("output", type=Path, help="where scripts/ablation.sh put the variants, and the table goes")
    parser.add_argument("whole", type=Path, help="the pipeline's output with the whole method")
    args = parser.parse_args()
    folders = {variant: args.output / variant for variant in ("classification", "calibration")} | {"whole": args.whole}
    results = {
        variant: read_json(folder / "results.json", "run scripts/ablation.sh first")
        for variant, folder in folders.items()
    }
    table = {}
    for title, (variant, row) in ROWS.items():
        for name, figures in results[variant].items():
            if name == row or name in (f"{row}_{split}" for split in ("val", "test", "testA", "testB")):
                table[title + name.removeprefix(row).replace("_", ", ")] = figures
    write_json(args.output / "ablation.json", table, indent=2)
    print(figures_table(table))


if __name__ == "__main__":
    run_script(main)
