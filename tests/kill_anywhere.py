"""Kills the pipeline with SIGKILL at random moments, starts the same command again, and compares what comes out.

    python -m tests.kill_anywhere --kills 20 --seed 0

The moments are drawn over the seconds of an undisturbed run, so they fall into all its steps. Exit status 0 where the
final files are the same: checkpoints tensor by tensor, others byte by byte but for seconds and memory.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dataset.toy.layouts import write_refcocog
from dataset.toy.photos import make_photos
from tests.test_pipeline import FLAGS as ONE_EPOCH
from utils.options import Parser, non_negative_int, positive_int

ROOT = Path(__file__).parent.parent
FLAGS = ONE_EPOCH | {  # and a save after every step or two
    "--stage1": "--batch_size 4 --epoch 2 --save_every 0.005",
    "--irnet": f"{ONE_EPOCH['--irnet']} --irn_num_epoches 2",
    "--stage2": "--batch_size 4 --epoch 2 --save_every 0.005 --skip_missing",
}
MEASURED = ("seconds", "peak_mb")  # differ from run to run


class Run:
    """The pipeline in a process group of its own."""

    def __init__(self, world: Path, output: Path):
        words = [word for pair in FLAGS.items() for word in pair]
        command = [sys.executable, "scripts/run_pipeline.py", "refcocog", "umd", str(output)]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the run
        self.process = subprocess.Popen(
            [*command, "--data_root", str(world), "--splits", "test", *words],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self) -> None:
        if self.process.wait():
            self.log.seek(0)
            sys.exit(f"the pipeline ended with status {self.process.returncode}:\n{self.log.read()[-3000:]}")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def finished_steps(output: Path) -> dict[str, Any]:
    """What the pipeline says of its finished steps."""
    state = output / "pipeline.json"
    return json.loads(state.read_text()) if state.is_file() else {}


def kill_within(run: Run, output: Path, step: str, share: float, seconds: float) -> bool:
    """Kill a run in this step, after a share of its usual seconds; False where the run was through before."""
    order = list(finished_steps(output))
    started = None
    while run.process.poll() is None:
        run.log.flush()
        begun = step in order or f"\n{step}: python" in "\n" + _said(run)
        started = started or (time.monotonic() if begun else None)
        if started and time.monotonic() - started >= share * seconds:
            run.kill()
            return True
        time.sleep(0.02)
    run.finish()
    return False


def _said(run: Run) -> str:
    return os.pread(run.log.fileno(), 1 << 20, 0).decode(errors="replace")


def contents(output: Path) -> dict[str, Any]:
    """Every file that a run leaves, in a form that can be compared."""
    return {str(file.relative_to(output)): _content(file) for file in sorted(output.rglob("*")) if file.is_file()}


def _content(file: Path) -> Any:
    if file.suffix == ".pth":
        return _plain(torch.load(file, weights_only=True))
    if file.suffix == ".json":
        return _plain(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return [_plain(json.loads(line)) for line in file.read_text().splitlines()]
    return file.read_bytes()


def _plain(value: Any) -> Any:
    """A value without what is measured and without paths; tensors as bytes, so that == compares all of it."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in (*MEASURED, "command")}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def main() -> None:
    parser = Parser("Kill the pipeline anywhere and compare.", "python -m tests.kill_anywhere --kills 20 --seed 0")
    parser.add_argument("--kills", type=positive_int, default=20, help="how often")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="another seed kills at other moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world, whole, killed = (Path(folder) / name for name in ("world", "whole", "killed"))
        write_refcocog(world, make_photos(3, {"train": 3, "val": 1, "test": 1}))
        Run(world, whole).finish()
        steps = {name: step["seconds"] for name, step in finished_steps(whole).items()}
        print(f"undisturbed: {sum(steps.values()):.0f} s, {steps}", flush=True)
        for number, (step, share) in enumerate(moments(steps, args.kills, random.Random(args.seed)), start=1):
            did = kill_within(Run(world, killed), killed, step, share, steps[step])
            told = "killed" if did else "was through before"
            print(f"{number}: {told}, {step} after {share:.0%}", flush=True)
        Run(world, killed).finish()
        compare(contents(whole), contents(killed))


def moments(steps: dict[str, float], count: int, rng: random.Random) -> list[tuple[str, float]]:
    """Steps and shares of them, drawn evenly over the seconds of the whole, in their order."""
    names = list(steps)
    chosen = rng.choices(names, list(steps.values()), k=count)
    return sorted(((step, rng.random()) for step in chosen), key=lambda moment: (names.index(moment[0]), moment[1]))


def compare(whole: dict[str, Any], killed: dict[str, Any]) -> None:
    different = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    if different:
        sys.exit(f"{len(different)} of {len(whole)} files differ: {', '.join(different[:20])}")
    print(f"all {len(whole)} files are the same")


if __name__ == "__main__":
    main()
