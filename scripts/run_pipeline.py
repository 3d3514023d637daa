"""Run the whole pipeline on a data set: stage 1, PRMS, IRNet, stage 2, and the evaluation of each.

    bash scripts/run_pipeline.sh DATASET SPLIT_BY [OUTPUT] [flags]      # refcoco unc, refcocog umd, referit -, jsonl -

Everything goes to OUTPUT; metrics, seconds and memory to OUTPUT/results.json. If interrupted, the same command resumes.
A step whose command has changed runs again, with all that depends on it.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

from dataset.datasets import DATA_SETS, UNSPLIT, known_splits
from utils.checkpoint import LAST
from utils.errors import ResumeError, UserError
from utils.files import lock_folder, read_json, write_json
from utils.log import log
from utils.options import DEFAULT_SAM, Parser, comma_list

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = ("untrained", "train_stage1", "stage1", "stage1_train", "stage1_prms_train", "stage1_mean_train", "irnet")
STEPS += ("sam", "pseudo_masks_train", "train_stage2", "stage2")
RESUMABLE = ("train_stage1", "irnet", "sam", "train_stage2")
READ_LATER = ("stage1_prms_train", "stage1_mean_train", *RESUMABLE)  # later steps read what these write
FLAGS_OF = {"--common": "all training and evaluation scripts, as '--backbone toy'", "--stage1": "train_stage1.py"}
FLAGS_OF |= {"--irnet": "IRNet/run_sample_refer.py", "--stage2": "train_stage2.py"}
HINT = "run the same command again"


def parse_args() -> argparse.Namespace:
    example = "bash scripts/run_pipeline.sh refcoco unc output/refcoco --splits val,testA,testB"
    parser = Parser("Run the whole pipeline on a data set. If interrupted, the same command resumes.", example)
    add = parser.add_argument
    add("dataset", metavar="DATASET", help=f"one of {', '.join(DATA_SETS)}")
    add("split_by", metavar="SPLIT_BY", help="whose split: unc, umd or google; - for referit and jsonl")
    add("output", nargs="?", metavar="OUTPUT", help="the folder for everything (default: output/DATASET_SPLITBY)")
    words = "the data folder (default: ./data; for referit ./data/referit)"
    add("--refer_data_root", "--data_root", dest="data_root", metavar="FOLDER", help=words)
    add("--splits", type=comma_list, metavar="NAMES", help="evaluated, as val,test, or none (default: all but train)")
    add("--only", type=comma_list, default=list(STEPS), metavar="STEPS", help="run no other steps")
    add("--scorer", metavar="NAME[=FILE]", help="the frozen CLIP of stage 1 and PRMS (default: ViT-B/32)")
    words = "make pseudo masks from the mean of a ref's response maps instead of PRMS's choice; not the paper's"
    add("--mean_map", action="store_true", help=words)
    words = "what makes pseudo masks of response maps: IRNet, SAM 2, which has been trained with masks, or both in turn"
    add("--cutter", choices=("irnet", "sam", "irnet+sam"), default="irnet", help=words)
    words = f"for --cutter: a name on Hugging Face's hub, or a folder (default: {DEFAULT_SAM})"
    add("--sam", metavar="NAME", help=words)
    for flag, scripts in FLAGS_OF.items():
        add(flag, metavar="'FLAGS'", help=f"further flags of {scripts}")
    words = iter(sys.argv[1:])  # argparse takes FLAGS that begin with - for its own, unless = joins them
    args = parser.parse_intermixed_args([f"{w}={next(words, '')}" if w in FLAGS_OF else w for w in words])
    if args.sam and args.cutter == "irnet":
        parser.error("--sam needs --cutter sam or --cutter irnet+sam")
    return args


def split_flags(text: str | None) -> list[str]:
    """Split flags as a shell does, without running anything."""
    try:
        return shlex.split(text or "")
    except ValueError:
        raise UserError(f"cannot read the flags '{text}'; check their quotes") from None


def build_steps(args: argparse.Namespace, out: str) -> dict[str, list[str]]:
    """The commands of the steps that apply, in order."""
    known, data_set = known_splits(args.dataset, args.split_by), DATA_SETS[args.dataset]
    splits = [name for name in known if name != "train"] if args.splits is None else args.splits
    masked = ["train"] if splits and data_set.annotated else []
    # The split that the best epoch is chosen on: never a test split.
    best = "val" if "val" in splits or (data_set.annotated and "val" in known) else "none"
    common, of_stage1, of_irnet, of_stage2 = map(split_flags, (args.common, args.stage1, args.irnet, args.stage2))
    root = args.data_root or data_set.root
    data = ["--dataset", args.dataset, "--refer_data_root", root, "--splitBy", args.split_by, *common]
    scorer = ["--scorer", args.scorer] if args.scorer else []

    def train(stage: int, *more: str) -> list[str]:
        return [f"train_stage{stage}.py", *data, "--test_split", best, "--output", f"{out}/stage{stage}", *more]

    def validate(name: str, splits: list[str], *more: str) -> list[str]:
        to = ["--test_split", ",".join(splits), "--json", f"{out}/metrics/{name}.json"]
        return ["validate.py", *data, *to, *more] if splits else []

    stage1, stage2 = (("--output", f"{out}/stage{stage}", "--pretrain", "ckpt.pth") for stage in (1, 2))
    maps = ("--cam_save_dir", f"{out}/cam", "--cam_format", "native", "--name_save_dir", f"{out}/")
    prms, mean = [*stage1, "--prms", *scorer], [*stage1, "--mean_map"]
    (mean if args.mean_map else prms).extend(maps)
    cutter = ["--train_list", f"{out}/{args.dataset}_train_names.json", "--cam_out_dir", f"{out}/cam"]
    cutter += ["--work_space", f"{out}/irnet", "--image_root", f"{root}/{data_set.photos}"]
    irnet_masks = f"{out}/ins_seg" if args.cutter == "irnet" else f"{out}/irnet_seg"
    irnet = [*cutter, "--ir_label_out_dir", f"{out}/ir_label", "--ins_seg_out_dir", irnet_masks]
    irnet += ["--cam_to_ir_label_pass", "True", "--train_irn_pass", "True", "--make_ins_seg_pass", "True"]
    sam = [*cutter, "--sam", args.sam or DEFAULT_SAM, "--ins_seg_out_dir", f"{out}/ins_seg"]
    sam += ["--irnet_masks", irnet_masks] if args.cutter == "irnet+sam" else []
    pseudo_masks = ("--pseudo_path", f"{out}/ins_seg", "--skip_missing")
    steps = {
        "untrained": validate("untrained", splits, "--untrained"),
        "train_stage1": train(1, *scorer, *of_stage1),
        "stage1": validate("stage1", splits, *stage1),
        "stage1_train": validate("stage1_train", masked, *stage1),
        "stage1_prms_train": validate("stage1_prms_train", masked if args.mean_map else ["train"], *prms),
        "stage1_mean_train": validate("stage1_mean_train", ["train"] if args.mean_map else [], *mean),
        "irnet": ["IRNet/run_sample_refer.py", *irnet, *of_irnet] if args.cutter != "sam" else [],
        "sam": ["scripts/cut_pseudo_masks.py", *sam] if args.cutter != "irnet" else [],
        "pseudo_masks_train": validate("pseudo_masks_train", masked, *pseudo_masks),
        "train_stage2": train(2, *pseudo_masks, *of_stage2),
        "stage2": validate("stage2", splits, *stage2),
    }
    return {name: command for name, command in steps.items() if command}


def stamp_of(name: str, output: Path) -> Path:
    return output / "steps" / f"{name}.json"


def run_step(name: str, command: list[str], output: Path) -> None:
    """Run a step unless this very command has finished before; resume it where it was begun.

    OUTPUT/steps/NAME.json holds the command, and the step's rows of the results once it has finished.
    """
    stamp, metrics = stamp_of(name, output), output / "metrics" / f"{name}.json"
    own = f"{output}/"  # may be copied to another place
    signed = [f"OUTPUT/{word.removeprefix(own)}" if word.startswith(own) else word for word in command]
    before = read_json(stamp, f"remove it to start {name} over") if stamp.exists() else {}
    begun = before.get("command") == signed
    if begun and "rows" in before:
        log(f"{name}: finished before")
        return
    resume = ["--resume"] if begun and name in RESUMABLE else []
    if not resume:
        (output / name.removeprefix("train_") / LAST).unlink(missing_ok=True)  # of another command
        for later in STEPS[STEPS.index(name) + 1 :] if name in READ_LATER else ():
            stamp_of(later, output).unlink(missing_ok=True)
        write_json(stamp, {"command": signed})
    metrics.unlink(missing_ok=True)
    run = ["python", str(REPOSITORY / command[0]), *command[1:], *resume]
    log(f"{name}: {shlex.join(run)}")
    status, cost = run_command(run)
    if resume and status == ResumeError.status:
        log(f"{name}: starts over")
        stamp.unlink()
        run_step(name, command, output)
        return
    if status:
        start_over = f", or remove {stamp} first to start over" if resume else ""
        raise UserError(f"the step {name} ended with status {status}, see above; then {HINT}{start_over}")
    by_split = read_json(metrics, HINT) if metrics.exists() else {}
    rows = {name if len(by_split) == 1 else f"{name}_{split}": values | cost for split, values in by_split.items()}
    write_json(stamp, {"command": signed, "rows": rows or {name: cost}})


def run_command(command: list[str]) -> tuple[int, dict[str, float]]:
    """Run a command; its exit status, seconds, and the memory of its largest process.

    SIGTERM reaches it as Ctrl-C, which lets Python end its workers, unless it runs in the background, where that is
    ignored; a terminal's Ctrl-C has reached it by itself.
    """
    began, ignored = time.monotonic(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    process = os.posix_spawnp(command[0], command, os.environ)
    try:
        _, status, usage = os.wait4(process, 0)
    except (KeyboardInterrupt, SystemExit) as end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(end, SystemExit):
            os.kill(process, signal.SIGTERM if ignored else signal.SIGINT)
        os.wait4(process, 0)
        raise
    cost = {"seconds": round(time.monotonic() - began, 1), "peak_mb": round(usage.ru_maxrss / 1024)}
    return os.waitstatus_to_exitcode(status), cost


def write_results(output: Path) -> None:
    """Write the rows of all finished steps, in order."""
    results = {}
    for stamp in (stamp_of(name, output) for name in STEPS):
        results |= read_json(stamp, HINT).get("rows", {}) if stamp.exists() else {}
    write_json(output / "results.json", results, indent=2)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = parse_args()
    if unknown := set(args.only) - set(STEPS):
        raise UserError(f"there is no step '{min(unknown)}'; known are {', '.join(STEPS)}")
    output = Path(args.output or f"output/{args.dataset}_{args.split_by}".removesuffix(f"_{UNSPLIT}"))
    steps = build_steps(args, str(output))
    with lock_folder(output, below=("steps", "metrics", "cam", "ir_label", "irnet_seg", "ins_seg")):
        for name in set(STEPS) - set(steps):  # of other flags: others may have overwritten what it wrote
            stamp_of(name, output).unlink(missing_ok=True)
        for name in [name for name in steps if name in args.only]:
            try:
                run_step(name, steps[name], output)
            except (KeyboardInterrupt, SystemExit):
                message = f"interrupted in the step {name}; the same command resumes there"
                print(f"run_pipeline.py: {message}", file=sys.stderr)
                raise
            write_results(output)
    subprocess.run(["python", REPOSITORY / "scripts" / "results_table.py", output], check=True)
    log(f"metrics, seconds and memory: {output}/results.json")


if __name__ == "__main__":
    run_script(main, lasting=True)
