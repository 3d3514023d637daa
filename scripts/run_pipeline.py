"""Run the whole pipeline on a data set: stage 1, PRMS, IRNet, stage 2, and the evaluation of each.

    bash scripts/run_pipeline.sh refcocog umd output/refcocog_umd

It can be stopped at any point; the same command goes on where it was. `<output>/results.json` holds the figures, and
seconds and memory of each step's last run: of a training that was stopped, what it took after that.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.artifacts import names_path
from dataset.known import CAM, DATA_SETS, INS_SEG, IR_LABEL, DataSet, known_data_set, known_splits
from utils.checkpoint import BEST_MIOU, LAST
from utils.errors import UserError, run_script
from utils.files import owned_by_this_run, read_json, write_json
from utils.log import figures_table
from utils.options import Parser, comma_list

ROOT = Path(__file__).resolve().parent.parent
ROOTS = ", ".join(dict.fromkeys(data_set.root for data_set in DATA_SETS.values()))
WITHOUT_ANY_MASK = ("train_stage1", "stage1_prms_train", "irnet", "train_stage2")
ON_ANNOTATED_TRAIN = ("stage1_train", "pseudo_masks_train")  # your own train split has no masks to compare with
RUN_ANEW = "remove it, and the steps are run anew"


@dataclass(frozen=True)
class Step:
    """One command of the pipeline; `figures` names the file and the rows that it leaves."""

    name: str
    command: list[str]
    figures: Path | None = None
    rows: dict[str, str] | None = None  # split -> row of results.json


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Run stage 1, PRMS, IRNet and stage 2 on a data set, and evaluate each. Stopped, it goes on where it was.",
        "bash scripts/run_pipeline.sh refcocog umd output/refcocog_umd",
    )
    parser.add_argument("dataset", help=f"one of {', '.join(DATA_SETS)}")
    parser.add_argument("split_by", help="unc, umd or google; - for referit and jsonl")
    parser.add_argument("output", nargs="?", help="where everything goes (default: output/DATASET_SPLITBY)")
    parser.add_argument(
        "--refer_data_root",
        "--data_root",
        dest="data_root",
        metavar="FOLDER",
        help=f"the data folder (default: {ROOTS})",
    )
    parser.add_argument("--splits", type=comma_list, help="splits to evaluate, as val,test, or none (default: all)")
    parser.add_argument(
        "--only", type=comma_list, metavar="STEPS", help="run these steps alone, as train_stage1,stage1 (default: all)"
    )
    parser.add_argument("--common", default="", metavar="FLAGS", help="for all of our scripts: '--backbone toy'")
    parser.add_argument("--scorer", metavar="NAME[=FILE]", help="of train_stage1.py and PRMS (default: ViT-B/32)")
    parser.add_argument("--stage1", default="", metavar="FLAGS", help="further flags of train_stage1.py")
    parser.add_argument("--irnet", default="", metavar="FLAGS", help="further flags of IRNet/run_sample_refer.py")
    parser.add_argument("--stage2", default="", metavar="FLAGS", help="further flags of train_stage2.py")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    output = Path(args.output or f"output/{args.dataset}_{args.split_by}".removesuffix("_-"))
    chosen = _chosen(steps(args, output), args)
    with owned_by_this_run(output):
        state = _read_state(output / "pipeline.json")
        for step in chosen:
            _run_step(step, state, output)
        print(figures_table({row: figures for step in state.values() for row, figures in step["figures"].items()}))
        print(f"figures, seconds and memory: {output / 'results.json'}")


def steps(args: argparse.Namespace, output: Path) -> list[Step]:
    """All commands in their order, also those that do not apply."""
    data_set, splits = known_data_set(args.dataset), _splits(args)
    root = args.data_root or data_set.root
    data = ["--dataset", args.dataset, "--refer_data_root", root]
    data += [] if args.split_by == "-" else ["--splitBy", args.split_by]
    shared = data + shlex.split(args.common)
    chosen_on = _validation(data_set, known_splits(args.dataset, args.split_by), splits)
    stage1, stage2, cam, masks = (output / name for name in ("stage1", "stage2", CAM, INS_SEG))

    def train(stage: int, folder: Path, flags: str) -> Step:
        script = [f"train_stage{stage}.py", *shared, "--test_split", chosen_on, "--output", str(folder)]
        return Step(f"train_stage{stage}", script + shlex.split(flags))

    def validate(row: str, on: list[str], *flags: str) -> Step:
        file = output / "figures" / f"{row}.json"
        rows = {split: row if len(on) == 1 else f"{row}_{split}" for split in on}
        command = ["validate.py", *shared, "--test_split", ",".join(on), "--json", str(file), *flags]
        return Step(row, command, file, rows)

    scorer = ["--scorer", args.scorer] if args.scorer else []
    checkpoint1, checkpoint2 = (("--output", str(folder), "--pretrain", BEST_MIOU) for folder in (stage1, stage2))
    export = ("--prms", "--cam_save_dir", str(cam), "--cam_format", "native", "--name_save_dir", str(output))
    return [
        validate("untrained", splits, "--untrained"),
        train(1, stage1, shlex.join([*scorer, *shlex.split(args.stage1)])),
        validate("stage1", splits, *checkpoint1),
        validate("stage1_train", ["train"], *checkpoint1),
        validate("stage1_prms_train", ["train"], *checkpoint1, *export, *scorer),
        Step("irnet", _irnet_command(args, root, output)),
        validate("pseudo_masks_train", ["train"], "--pseudo_path", str(masks)),
        train(2, stage2, f"--pseudo_path {shlex.quote(str(masks))} {args.stage2}"),
        validate("stage2", splits, *checkpoint2),
    ]


def _splits(args: argparse.Namespace) -> list[str]:
    """The splits that are evaluated."""
    known = known_splits(args.dataset, args.split_by)
    return [split for split in known if split != "train"] if args.splits is None else args.splits


def _chosen(every: list[Step], args: argparse.Namespace) -> list[Step]:
    """The steps that apply to these data, or those of them that --only names."""
    known = [step.name for step in every]
    only = known if args.only is None else args.only
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UserError(f"there is no step '{unknown[0]}'; known are {', '.join(known)}")
    return [step for step in every if step.name in only and _applies(step.name, args)]


def _applies(name: str, args: argparse.Namespace) -> bool:
    if not _splits(args):
        return name in WITHOUT_ANY_MASK
    return known_data_set(args.dataset).annotated or name not in ON_ANNOTATED_TRAIN


def _irnet_command(args: argparse.Namespace, root: str, output: Path) -> list[str]:
    flags = {
        "--train_list": names_path(output, args.dataset, "train"),
        "--cam_out_dir": output / CAM,
        "--ir_label_out_dir": output / IR_LABEL,
        "--ins_seg_out_dir": output / INS_SEG,
        "--work_space": output / "irnet",
        "--image_root": Path(root) / known_data_set(args.dataset).photos,
    }
    passes = [word for name in ("cam_to_ir_label", "train_irn", "make_ins_seg") for word in (f"--{name}_pass", "True")]
    words = [word for flag, path in flags.items() for word in (flag, str(path))]
    return ["IRNet/run_sample_refer.py", *words, *passes, *shlex.split(args.irnet)]


def _validation(data_set: DataSet, known: Collection[str], splits: list[str]) -> str:
    """The split that the best checkpoint is chosen on, never a test split; without any the last epoch's is kept."""
    return "val" if "val" in splits or (data_set.annotated and "val" in known) else "none"


def _run_step(step: Step, state: dict, output: Path) -> None:
    """Run a step that has not been finished; a training that was begun goes on from its last checkpoint."""
    finished = state.get(step.name)
    if finished and finished["command"] != step.command:
        raise UserError(f"{output} holds the step {step.name} with other flags; use these, or another OUTPUT")
    if finished:
        print(f"{step.name}: finished before, in {finished['seconds']} s")
        return
    command = [sys.executable, *step.command]
    if step.name.startswith("train_stage") and (output / step.name.removeprefix("train_") / LAST).is_file():
        command.append("--resume")
    print(f"{step.name}: {shlex.join(['python', *command[1:]])}", flush=True)
    began = time.monotonic()
    status, usage, received = _run(command)
    if received:
        print(f"run_pipeline.py: interrupted in the step {step.name}; the same command goes on there", file=sys.stderr)
        sys.exit(128 + received[0])
    if status:
        raise UserError(f"the step {step.name} ended with status {status}; see above, then run the same command again")
    state[step.name] = {
        "command": step.command,
        "seconds": round(time.monotonic() - began, 1),
        "peak_mb": round(usage / 1024),
        "figures": _figures(step),
    }
    write_json(output / "pipeline.json", state, indent=1)
    write_json(output / "results.json", _results(state), indent=2)


def _run(command: list[str]) -> tuple[int, int, list[int]]:
    """Run a command in the repository's root: exit status, peak KiB of its largest process, signals meanwhile.

    It ends before this returns: SIGTERM is passed on to it; Ctrl-C reaches it by itself, terminals send it to both.
    """
    running: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on() -> None:
        for process in running if signal.SIGTERM in received else ():
            os.kill(process.pid, signal.SIGTERM)

    def note(number: int, _: object) -> None:
        received.append(number)
        pass_on()

    with _handled_by(note):
        process = subprocess.Popen(command, cwd=ROOT)
        running.append(process)
        pass_on()  # a signal may have come before it was there
        # It keeps its number, to be passed signals to. A blocking wait would miss a signal that comes just before it.
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            time.sleep(0.05)
        running.clear()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss, received


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """SIGTERM and SIGINT go to `handler` instead of ending this process."""
    before = {kind: signal.signal(kind, handler) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, earlier)


def _figures(step: Step) -> dict[str, dict[str, float]]:
    if not step.figures:
        return {}
    by_split = read_json(ROOT / step.figures, "run the same command again")
    return {row: by_split[split] for split, row in step.rows.items() if split in by_split}


def _results(state: dict) -> dict[str, dict[str, float]]:
    """A row for each set of figures, and one for each step without any; seconds and memory are the step's."""
    rows = {}
    for name, step in state.items():
        cost = {"seconds": step["seconds"], "peak_mb": step["peak_mb"]}
        for row, figures in (step["figures"] or {name: {}}).items():
            rows[row] = figures | cost
    return rows


def _read_state(file: Path) -> dict:
    if not file.exists():
        return {}
    state = read_json(file, RUN_ANEW)
    if not isinstance(state, dict) or not all(map(_is_finished_step, state.values())):
        raise UserError(f"{file} does not hold finished steps; {RUN_ANEW}")
    return state


def _is_finished_step(step: object) -> bool:
    wanted = {"command": list, "seconds": float, "peak_mb": int, "figures": dict}
    return isinstance(step, dict) and all(isinstance(step.get(name), kind) for name, kind in wanted.items())


if __name__ == "__main__":
    os.chdir(ROOT)
    run_script(main)
