"""Run one step of scripts/run_pipeline.sh, and add its metrics, seconds and memory to the results.

    python scripts/record_step.py OUTPUT NAME COMMAND ...

A command that ends well leaves `OUTPUT/steps/NAME.json` with the step's rows of `OUTPUT/results.json`, which is put
together from these files: one row per split in `OUTPUT/metrics/NAME.json`, where the command writes it, otherwise one
without metrics. Exit status: the command's. SIGTERM is passed on to the command as SIGINT, which lets Python end its
workers; Ctrl-C reaches the command by itself.
"""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.errors import run_script
from utils.files import read_json, write_json

SIGNALS = {signal.SIGTERM, signal.SIGINT}
HINT = "run the same command again"


def main() -> None:
    output, name, *command = sys.argv[1:]
    steps, metrics = Path(output) / "steps", Path(output) / "metrics" / f"{name}.json"
    metrics.unlink(missing_ok=True)
    started = time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is a command to pass them on to
    process = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS))
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    status = process.wait()
    if status:
        sys.exit(128 - status if status < 0 else status)  # as a shell gives it
    cost = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),  # of the largest process
    }
    by_split = read_json(metrics, HINT) if metrics.exists() else {}
    rows = {name if len(by_split) == 1 else f"{name}_{split}": values | cost for split, values in by_split.items()}
    write_json(steps / f"{name}.json", rows or {name: cost})
    finished = sorted(steps.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    results = {row: values for file in finished for row, values in read_json(file, HINT).items()}
    write_json(Path(output) / "results.json", results, indent=2)


if __name__ == "__main__":
    run_script(main)
