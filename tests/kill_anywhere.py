"""Kills the pipeline with SIGKILL at random moments, starts the same command again, and compares what comes out.

    python -m tests.kill_anywhere --kills 20 --seed 0

The moments are drawn over the seconds of an undisturbed run, so they fall into all its steps. Exit status 0 where the
final files are the same: checkpoints tensor by tensor, others byte by byte except for seconds and memory.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from toy.layouts import write_refcocog
from toy.photos import make_photos
from utils.options import Parser, non_negative_int, positive_int

ROOT = Path(__file__).parent.parent
FLAGS = ["--common", "--backbone toy --hidden_dim 16 --size 96 --num_workers 0"]
FLAGS += ["--stage1", "--batch_size 4 --epoch 2", "--stage2", "--batch_size 4 --epoch 2"]
FLAGS += ["--irnet", "--backbone resnet-toy --irn_crop_size 80 --irn_batch_size 4 --irn_num_epoches 2 --num_workers 0"]
MEASURED = ("seconds", "peak_mb")  # differ from run to run


class Run:
    """The pipeline in a process group of its own."""

    def __init__(self, world: Path, output: Path, *words: str):
        self.log = output.with_name(f"{output.name}.log")
        command = ["bash", "scripts/run_pipeline.sh", "refcocog", "umd", output, "--data_root", world]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--splits", "test", *FLAGS, *words],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        return "\n" + self.log.read_text(errors="replace")

    def finish(self) -> None:
        if self.process.wait():
            sys.exit(f"the pipeline ended with status {self.process.returncode}:\n{self.printed()[-3000:]}")

    def reach(self, due: Callable[[], bool]) -> bool:
        """Wait until `due` is true; False where the run ends before."""
        while not due():
            if self.process.poll() is not None:
                self.finish()
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def contents(folder: Path) -> dict[str, Any]:
    """Every file that a run leaves, in a form that can be compared."""
    return {str(file.relative_to(folder)): content(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def content(file: Path) -> Any:
    if file.suffix == ".pth":
        return plain(torch.load(file, weights_only=True))
    if file.suffix in (".json", ".jsonl"):
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        return [plain(json.loads(line)) for line in lines]
    return file.read_bytes()


def plain(value: Any) -> Any:
    """A value without what is measured; tensors as bytes, so that == compares all of it."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in MEASURED}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def differences(whole: Path, killed: Path) -> list[str]:
    """The files below two folders that differ."""
    a, b = contents(whole), contents(killed)
    return sorted(name for name in a.keys() | b.keys() if a.get(name, "") != b.get(name, ""))


def main() -> None:
    parser = Parser("Kill the pipeline anywhere and compare.", "python -m tests.kill_anywhere --kills 20 --seed 0")
    parser.add_argument("--kills", type=positive_int, default=20, help="how often")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="another seed kills at other moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world, whole, killed = (Path(folder) / name for name in ("world", "whole", "killed"))
        write_refcocog(world, make_photos(3, {"train": 3, "val": 1, "test": 1}))
        Run(world, whole).finish()
        seconds = {row: values["seconds"] for row, values in json.loads((whole / "results.json").read_text()).items()}
        print(f"undisturbed: {sum(seconds.values()):.0f} s, {seconds}", flush=True)
        # Drawn evenly over the whole, in the order of the steps.
        rng, steps = random.Random(args.seed), list(seconds)
        chosen = sorted(rng.choices(steps, list(seconds.values()), k=args.kills), key=steps.index)
        for number, step in enumerate(chosen, start=1):
            run, after = Run(world, killed), rng.random() * seconds[step]
            running = run.reach(lambda run=run, step=step: f"\n{step}: " in run.printed())
            end = time.monotonic() + after
            running = running and run.reach(lambda end=end: time.monotonic() >= end)
            if running:
                run.kill()
            print(f"{number}: {'killed' if running else 'ended before'}, {step} after {after:.1f} s", flush=True)
        Run(world, killed).finish()
        different, total = differences(whole, killed), len(contents(whole))
    if different:
        sys.exit(f"{len(different)} of {total} files differ: {', '.join(different[:20])}")
    print(f"all {total} files are the same")


if __name__ == "__main__":
    main()
