"""Mean and range of each figure over runs: python scripts/seeds_table.py RESULTS.json RESULTS.json ..."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.errors import run_script
from utils.files import read_json
from utils.options import Parser

FIGURES = ("mIoU", "oIoU", "P@0.5", "PointM")


def parse_args() -> argparse.Namespace:
    parser = Parser("Mean and range of each figure over runs.", "python scripts/seeds_table.py output/*/results.json")
    parser.add_argument("results", nargs="+", metavar="RESULTS.json", help="what run_pipeline.sh wrote, a file a run")
    return parser.parse_args()


def main() -> None:
    runs = [read_json(file, "give a results.json of run_pipeline.sh") for file in parse_args().results]
    rows = [name for name, figures in runs[0].items() if FIGURES[0] in figures and all(name in run for run in runs)]
    print("| mean (lowest to highest), % | " + " | ".join(FIGURES) + " |")
    print("|---" * (1 + len(FIGURES)) + "|")
    for row in rows:
        print(f"| {row} | " + " | ".join(_cell([run[row][figure] for run in runs]) for figure in FIGURES) + " |")


def _cell(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    run_script(main)
