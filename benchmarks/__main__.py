"""Time every part beside the straightforward way of computing it, as the published code does.

    bash scripts/benchmark.sh [--only stage1_step crf ...] [--json FILE]

Networks and inputs have their real sizes and random values, so nothing is downloaded.
"""

from utils.start import run_script

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import irnet, tris
from benchmarks.timing import Setting, measure
from utils.files import write_json
from utils.options import Parser

ROWS = tris.ROWS | tris.GPU_ROWS | irnet.ROWS
COLUMNS = ("ours_s", "straightforward_s", "ratio", "ratio_min", "ratio_max", "max_difference")
COLUMNS += ("per_second", "unit", "peak_mb", "of_peak")


def main() -> None:
    parser = Parser(
        "Time every part beside the straightforward way of computing it: seconds, their ratio and its range.",
        "bash scripts/benchmark.sh --only stage1_step crf --json benchmark.json",
        prog="benchmark.sh",
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="NAME", help="only these rows")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = 8  # on a GPU that of the paper
    if device.type == "cuda":
        batch_size = 48
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    else:
        threads, load = torch.get_num_threads(), os.getloadavg()[0]
        print(f"CPU, {threads} threads, PyTorch {torch.__version__}, load at the start {load:.1f}")
    names = args.only or [name for name in ROWS if device.type == "cuda" or name not in tris.GPU_ROWS]
    print(f"{'':22s}", *(f"{column:>18s}" for column in COLUMNS), flush=True)
    table = {}
    for number, name in enumerate(names, start=1):
        print(f"measuring {name} ({number} of {len(names)})", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(Path(folder), device, batch_size)
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                row = table[name] = process.submit(measure, ROWS[name], setting).result()
        cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row.get(column, "-") for column in COLUMNS))
        print(f"{name:22s}", *(f"{cell:>18s}" for cell in cells), flush=True)
    if args.json:
        write_json(args.json, table, indent=1)


if __name__ == "__main__":
    run_script(main)
