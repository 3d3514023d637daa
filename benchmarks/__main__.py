"""Time every part beside the straightforward way of computing it, as the published code does.

    bash scripts/benchmark.sh [--only stage1_step crf ...] [--json FILE]

Ours and the other are run in turns.
"""

import sys
import tempfile
import time

import torch

from benchmarks import irnet, tris
from benchmarks.timing import compare, full_size, machine
from utils.errors import run_script
from utils.files import write_json
from utils.options import Parser

ROWS = tris.ROWS | irnet.ROWS
COLUMNS = ("ours_s", "straightforward_s", "ratio", "ratio_min", "ratio_max", "max_difference")


def main() -> None:
    parser = Parser(
        "Every part beside the straightforward way of computing it: seconds, ratios and their spread.",
        "bash scripts/benchmark.sh --only stage1_step crf --json benchmark.json",
        prog="benchmark.sh",
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help="these rows")
    parser.add_argument(
        "--cpu_seconds", action="store_true", help="count CPU seconds of all threads: for a busy machine without a GPU"
    )
    parser.add_argument("--json", metavar="FILE", help="write the table there as well")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_seconds else time.perf_counter
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{machine()}; {'CPU' if args.cpu_seconds else 'wall-clock'} seconds")
    print(f"{'':12s}", *(f"{column:>18s}" for column in COLUMNS), flush=True)
    table = {}
    for name in args.only:
        print(f"measuring {name} ({len(table) + 1} of {len(args.only)})", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            table[name] = compare(ROWS[name](full_size(folder, device)), clock)
        print(f"{name:12s}", *(f"{table[name][column]:18.4g}" for column in COLUMNS), flush=True)
    if args.json:
        write_json(args.json, table, indent=1)


if __name__ == "__main__":
    run_script(main)
