"""What both trainings share: their start, their epochs, validation, checkpoints, pictures and reports."""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dataset.references import Split
from dataset.samples import EvalPhotos, eval_loader, start_epoch
from model.build import Architecture, Network, build_network, load_network, network_content
from model.evaluation import evaluate
from model.sheets import draw_examples
from utils.checkpoint import LAST, find_checkpoint, load_checkpoint, require_settings, save_training
from utils.distributed import barrier, is_main, world_size
from utils.engine import Training, steps_per_epoch, train_one_epoch
from utils.errors import resuming
from utils.log import TrainingLog, log
from utils.metrics import summarise
from utils.options import training_settings
from utils.pictures import optional, save_png, spread

EMPTY_WARNING = 90  # percent of an epoch's predicted masks


def initial_network(
    stage: int, args: argparse.Namespace, device: torch.device
) -> tuple[Network, dict[str, Any] | None]:
    """The network that training starts with; and with `--resume` the content of the last checkpoint, if there is one.

    The network is that checkpoint's, else that of `--pretrain`, else a new one with CLIP's weights. UserError where a
    checkpoint is damaged, or was made with other settings.
    """
    torch.manual_seed(args.seed)
    file, hint, last = Path(args.output) / LAST, "train without --resume", None
    architecture = Architecture.of_flags(args)
    if args.resume and file.is_file():
        with resuming():
            last = load_checkpoint(file, hint)
        require_settings(last, training_settings(args), args.output)
    elif args.resume:
        log(f"{file} does not exist yet: training starts from the beginning")
    if last is None and not args.pretrain:
        return build_network(stage, architecture, pretrained=True).to(device), None
    if last is None:
        file, hint = find_checkpoint(args.output, args.pretrain), "give another --pretrain, or leave it out"
    network = load_network(file, hint, architecture, stage, last)
    network.architecture.require_flags(args, file)
    network.architecture = replace(network.architecture, input_size=args.size, query_length=args.max_query_len)
    return network.to(device), last


def run_epochs(
    args: argparse.Namespace,
    training: Training,
    loader: DataLoader,
    splits: Mapping[str, Split],
    measure: Callable[[], dict[str, float]],
) -> None:
    """Train the epochs that are left. Each is saved with what `measure` finds of it, by name, and then shown."""
    training_log = TrainingLog(args.output, args.board_folder, vars(args))
    done = len(training.history)
    log_start(args, loader, done)
    if done >= args.epochs:
        show_epoch(args, training, splits, training_log)
    for epoch in range(done, args.epochs):
        began = time.monotonic()
        start_epoch(loader, epoch)
        line = {"epoch": epoch + 1} | train_one_epoch(training, loader, training_log) | measure()
        training.history.append(line | {"seconds": round(time.monotonic() - began, 1)})
        finish_epoch(args, training, splits, training_log)
    training_log.close()
    log(f"checkpoint: {args.output}/ckpt.pth; examples of the last epoch: {args.output}/examples.png")
    barrier()


def log_start(args: argparse.Namespace, loader: DataLoader, epoch: int) -> None:
    """One line that says what is trained on what, from which epoch, counted from 0."""
    if epoch >= args.epochs:
        log(f"all {args.epochs} epochs in {args.output} are finished")
        return
    batch = f"batch {args.batch_size}"
    batch += f" x {world_size()} processes" if world_size() > 1 else ""
    batch += f" x {args.accumulate} accumulated" if args.accumulate > 1 else ""
    steps = steps_per_epoch(loader, args.accumulate)
    log(
        f"training epochs {epoch + 1} to {args.epochs}: {len(loader.dataset)} refs, {steps} steps per epoch, {batch}, "
        f"checkpoints in {args.output}"
    )


def validation_loaders(splits: Mapping[str, Split], args: argparse.Namespace) -> dict[str, DataLoader]:
    """A loader for each split in `--test_split`. UserError for a split without masks."""
    photos = {name: EvalPhotos(splits[name], args.size, args.max_query_len) for name in args.test_split}
    batch_size = min(args.batch_size, 8)  # so few that validation never needs more memory than training
    return {name: eval_loader(found, batch_size, args.num_workers) for name, found in photos.items()}


def true_sentences(split: Split, args: argparse.Namespace) -> DataLoader:
    """Some of the photos trained on, evenly spaced, with all sentences that are true of them; no masks."""
    references = split.present().references
    photos = set(spread(list(dict.fromkeys(reference.photo for reference in references)), 128))
    part = split.part([reference for reference in references if reference.photo in photos])
    found = EvalPhotos(part, args.size, args.max_query_len, masks=False)
    return eval_loader(found, min(args.batch_size, 8), args.num_workers)


def validate(network: Network, loaders: Mapping[str, DataLoader], device: torch.device) -> dict[str, float]:
    """The metrics of each split, by `<split>/<metric>`, in percent."""
    metrics = {}
    for name, loader in loaders.items():
        outcomes = evaluate(network, loader, device, title=f"validation on {name}")
        metrics |= {f"{name}/{metric}": value for metric, value in summarise(outcomes).items()}
    return metrics


def finish_epoch(
    args: argparse.Namespace, training: Training, splits: Mapping[str, Split], training_log: TrainingLog
) -> None:
    """Save an epoch, the last line of the history, and then show it: a run that is killed before repeats the epoch."""
    line, examples = training.history[-1], Path(args.output) / "examples.png"
    if is_main():
        split = args.test_split[0] if args.test_split else None
        save_training(args.output, network_content(training.network), training, training_settings(args), split)
    shown = [f"{name} {line[name]:.4g}" for name in line if name.endswith(("loss", "/mIoU", "PointM", "Hit"))]
    log(f"epoch {line['epoch']} of {args.epochs}: {', '.join(shown)} ({line['seconds']} s)")
    for split in args.test_split:
        if line[f"{split}/empty"] > EMPTY_WARNING:
            words = f"{line[f'{split}/empty']:.0f} % of the masks predicted on {split} are empty"
            log(f"warning: {words}; look at {examples}, and if that lasts, train with a lower --lr")
    show_epoch(args, training, splits, training_log)


def show_epoch(
    args: argparse.Namespace, training: Training, splits: Mapping[str, Split], training_log: TrainingLog
) -> None:
    """Write all epochs to the log, and draw examples of the last one.

    Also where a resumed training turns out to be finished: it can have been killed between checkpoint and log.
    """
    if is_main():
        training_log.epoch(training.history, training.step)
        examples = Path(args.output) / "examples.png"
        with optional(examples):
            split = splits[args.test_split[0] if args.test_split else "train"]
            sheet = draw_examples(split, training.network, args.size, args.max_query_len)
            training_log.picture("examples", sheet, training.step)
            save_png(examples, sheet)
