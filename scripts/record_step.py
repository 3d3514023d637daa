"""Run one step of scripts/run_pipeline.sh, and add its metrics, seconds and memory to the results.

    python scripts/record_step.py OUTPUT NAME COMMAND ...

Each step's rows of `OUTPUT/results.json` are also in `OUTPUT/steps/NAME.json`, written last, when the command has ended
well: one row per split in `OUTPUT/metrics/NAME.json`, where the command writes it, otherwise one without metrics. Exit
status: the command's. SIGTERM is passed on to it as SIGINT, which lets Python end its workers.
"""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

from utils.files import read_json, write_json

HINT = "run the same command again"


def main() -> None:
    output, name, *command = sys.argv[1:]
    steps, metrics = Path(output) / "steps", Path(output) / "metrics" / f"{name}.json"
    metrics.unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command by itself
    status = process.wait()
    if status:
        sys.exit(128 - status if status < 0 else status)  # as a shell gives it
    cost = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),  # of the largest process
    }
    by_split = read_json(metrics, HINT) if metrics.exists() else {}
    rows = {name if len(by_split) == 1 else f"{name}_{split}": values | cost for split, values in by_split.items()}
    rows = rows or {name: cost}
    results = {}
    for file in sorted(steps.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):  # as they finished
        results |= read_json(file, HINT)
    write_json(Path(output) / "results.json", results | rows, indent=2)
    write_json(steps / f"{name}.json", rows)


if __name__ == "__main__":
    run_script(main)
