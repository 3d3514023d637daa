"""Print what scripts/run_pipeline.sh measured, in percent.

python scripts/results_table.py output/toy                          # all rows; of several outputs one after another
python scripts/results_table.py --mean output/toy output/toy_seed1  # mean (lowest to highest) over outputs
python scripts/results_table.py --rows 'bash scripts/quickstart.sh' output/toy    # rows for docs/results.md
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import torch

from dataset.datasets import DATA_SETS, UNSPLIT
from utils.errors import UserError
from utils.files import read_json
from utils.log import metrics_table
from utils.options import Parser

REPOSITORY = Path(__file__).resolve().parent.parent
OF_SEVERAL = ("mIoU", "oIoU", "P@0.5", "PointM")
COST = ("seconds", "peak_mb")  # no metrics
COLUMNS = ("data set", "split", "stage", "cutter", "commit", "machine", "h:mm", *OF_SEVERAL, "command")
CUTTERS = {"irnet": "IRNet", "sam": "SAM 2"}  # by the step that cuts
AFTER_CUTTER = ("pseudo masks", "stage2")
PUBLISHED = {  # mIoU; docs/reproduction.md
    ("refcoco unc", "val", "stage2"): 31.17,
    ("refcoco unc", "testA", "stage2"): 32.43,
    ("refcoco unc", "testB", "stage2"): 29.56,
}
HINT = "name an OUTPUT of scripts/run_pipeline.sh"
Metrics = dict[str, float]


def main() -> None:
    parser = Parser("Print what scripts/run_pipeline.sh measured.", "python scripts/results_table.py output/toy")
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUT", help="of scripts/run_pipeline.sh")
    parser.add_argument("--mean", action="store_true", help="mean, lowest and highest value over the outputs")
    words = "rows for docs/results.md, with the command that made them, commit and machine: those of now"
    parser.add_argument("--rows", metavar="'COMMAND'", help=f"{words}; of several outputs the mean")
    args = parser.parse_args()
    results = {str(output): read_json(output / "results.json", HINT) for output in args.outputs}
    runs = {}  # output -> row -> metric -> value
    for output, rows in results.items():
        metrics = {row: {k: v for k, v in values.items() if k not in COST} for row, values in rows.items()}
        runs[output] = {row: values for row, values in metrics.items() if values}
    if args.rows:
        print(markdown(COLUMNS, result_rows(list(runs.values()), args.outputs, args.rows)))
    elif args.mean:
        print(table_of_means(list(runs.values())))
    elif len(runs) == 1:
        print(metrics_table(*runs.values()))
    else:
        print(metrics_table({f"{name}: {row}": metrics for name, run in runs.items() for row, metrics in run.items()}))


def markdown(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def in_all(runs: list[dict[str, Metrics]]) -> list[str]:
    """The rows that all runs have."""
    return [row for row in runs[0] if all(row in run for run in runs)]


def over_runs(runs: list[dict[str, Metrics]], row: str) -> list[str]:
    """The metrics `OF_SEVERAL` of a row: the mean over the runs that have it, with its range where they are several."""
    cells = []
    for metric in OF_SEVERAL:
        v = [run[row][metric] for run in runs if metric in run[row]]
        extent = f" ({min(v):.1f} to {max(v):.1f})" if len(v) > 1 else ""
        cells.append(f"{sum(v) / len(v):.1f}{extent}" if v else "-")
    return cells


def table_of_means(runs: list[dict[str, Metrics]]) -> str:
    """A Markdown table of the rows that all runs have."""
    rows = [[row, *over_runs(runs, row)] for row in in_all(runs)]
    return markdown(("mean (lowest to highest), %", *OF_SEVERAL), rows)


def result_rows(runs: list[dict[str, Metrics]], outputs: list[Path], command: str) -> list[list[str]]:
    """The rows of docs/results.md, as `COLUMNS`; `command` made the outputs of the runs, with this commit and machine.

    h:mm: of all steps up to that of the row, mean over the outputs.
    """
    of_steps = [read_steps(output) for output in outputs]
    step_of = {row: step for step, stamp in of_steps[0].items() for row in stamp["rows"]}
    cutter = ", ".join(name for step, name in CUTTERS.items() if step in of_steps[0])
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "-"
    rows = []
    for row in in_all(runs):
        until = list(of_steps[0])[: list(of_steps[0]).index(step_of[row]) + 1]
        seconds = [
            next(iter(steps[step]["rows"].values()))["seconds"] for steps in of_steps for step in until if step in steps
        ]
        data, splits = of_command(of_steps[0][step_of[row]]["command"])
        split = splits[0] if len(splits) == 1 else row.rpartition("_")[2]
        stage = row.removesuffix(f"_{split}").replace("_", " ")
        metrics = over_runs(runs, row)
        if published := PUBLISHED.get((data, split, stage)):
            metrics[0] += f" (published: {published})"
        of_cutter = cutter if stage in AFTER_CUTTER else "-"
        minutes = round(sum(seconds) / len(outputs) / 60)
        time = f"{minutes // 60}:{minutes % 60:02}"
        rows.append([data, split, stage, of_cutter, commit, machine(), time, *metrics, f"`{command}`"])
    return rows


def read_steps(output: Path) -> dict[str, Any]:
    """The stamps of the finished steps of an output by name, in the order in which they ran."""
    order = list(read_json(output / "results.json", HINT))
    stamps = {file.stem: read_json(file, HINT) for file in (output / "steps").glob("*.json")}
    finished = {name: stamp for name, stamp in stamps.items() if stamp.get("rows")}
    if not finished:
        raise UserError(f"{output}/steps holds no finished step; {HINT}")
    return dict(sorted(finished.items(), key=lambda item: order.index(next(iter(item[1]["rows"])))))


def of_command(command: list[str]) -> tuple[str, list[str]]:
    """The data set and the splits that a step's command names."""
    names = ("--dataset", "--splitBy", "--refer_data_root", "--test_split")
    dataset, split_by, root, splits = (command[command.index(name) + 1] for name in names)
    own = "" if root == DATA_SETS[dataset].root else f" in {root}"
    return f"{dataset} {split_by}".removesuffix(f" {UNSPLIT}") + own, splits.split(",")


def machine() -> str:
    """The GPU, or the CPU and how many of its cores there are."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores of {model[1] if model else platform.machine()}"


if __name__ == "__main__":
    run_script(main)
