"""Print what scripts/run_pipeline.sh measured, in percent.

python scripts/results_table.py output/toy                          # all rows; of several outputs one after another
python scripts/results_table.py --mean output/toy output/toy_seed1  # mean (lowest to highest) over outputs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

from utils.files import read_json
from utils.log import metrics_table
from utils.options import Parser

OF_SEVERAL = ("mIoU", "oIoU", "P@0.5", "PointM")
COST = ("seconds", "peak_mb")  # no metrics


def main() -> None:
    parser = Parser("Print what scripts/run_pipeline.sh measured.", "python scripts/results_table.py output/toy")
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUT", help="of scripts/run_pipeline.sh")
    parser.add_argument("--mean", action="store_true", help="mean, lowest and highest value over the outputs")
    args = parser.parse_args()
    runs = {}  # output -> row -> metric -> value
    for output in args.outputs:
        results = read_json(output / "results.json", "name an OUTPUT of scripts/run_pipeline.sh")
        rows = {row: {k: v for k, v in values.items() if k not in COST} for row, values in results.items()}
        runs[str(output)] = {row: metrics for row, metrics in rows.items() if metrics}
    if args.mean:
        print(table_of_means(list(runs.values())))
    elif len(runs) == 1:
        print(metrics_table(*runs.values()))
    else:
        print(metrics_table({f"{name}: {row}": metrics for name, run in runs.items() for row, metrics in run.items()}))


def table_of_means(runs: list[dict[str, dict[str, float]]]) -> str:
    """A Markdown table of the rows that all runs have."""
    lines = [f"| mean (lowest to highest), % | {' | '.join(OF_SEVERAL)} |", "|---" * (1 + len(OF_SEVERAL)) + "|"]
    for row in [row for row in runs[0] if all(row in run for run in runs)]:
        values = [[run[row][metric] for run in runs if metric in run[row]] for metric in OF_SEVERAL]
        cells = (f"{sum(v) / len(v):.1f} ({min(v):.1f} to {max(v):.1f})" if v else "-" for v in values)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
