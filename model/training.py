"""A training of either stage, put together from the command line's settings: the scripts differ in data and losses."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dataset.loading import TrainLoader, eval_loader
from dataset.references import Split
from dataset.samples import EvalBatch, EvalPhotos
from model.build import Architecture, build_network, load_network, network_content
from model.examples import Examples
from model.prms import Predict
from utils.checkpoint import BEST_HIT, BEST_MIOU, LAST, load_checkpoint, save_checkpoint
from utils.distributed import is_main, wait_for_all, world_size
from utils.engine import Criterion, Training, amp_dtype, fit
from utils.errors import UserError, reason
from utils.evaluator import evaluate
from utils.files import owned_by_this_run
from utils.log import TrainingLog, say
from utils.maps import Responses
from utils.metrics import summarise
from utils.optimisation import build_optimizer, polynomial_decay
from utils.pictures import save_png
from utils.sync_batch_norm import synchronise

EXAMPLES = "examples.png"
BEST = {BEST_MIOU: "mIoU", BEST_HIT: "Hit"}

# Settings that a resumed training must share with the one it goes on from; the others may change on the way.
FIXED = ("dataset", "split_by", "size", "max_query_len", "batch_size", "accumulate", "epochs", "seed", "amp", "compile")
FIXED += ("lr", "lr_multi", "weight_decay", "w1", "w4", "w5", "negative_samples", "model_ema")


def predictor(network: nn.Module) -> Predict:
    """`predict` of a network for the evaluator."""

    def predict(batch: EvalBatch) -> Responses:
        return network.respond(batch.images, batch.tokens, batch.photo)

    return predict


def train(
    stage: int,
    args: argparse.Namespace,
    architecture: Architecture,
    build_criterion: Callable[[nn.Module], Criterion],
    loader: TrainLoader,
    validation: Sequence[Split],
    device: torch.device,
    schedule_interval: Literal["step", "epoch"],
    fast: Sequence[str] = (),
) -> None:
    """Build or resume a training and run it to its end; `args` are the flags of the training group."""
    output = Path(args.output)
    examples = Examples([*validation, loader.samples.split][0], args.size, args.max_query_len)
    photos = {
        split.name: EvalPhotos(split, args.size, args.max_query_len, cache_images=args.cache_images)
        for split in validation
    }
    settings = {name: getattr(args, name) for name in FIXED if hasattr(args, name)} | {"processes": world_size()}
    with owned_by_this_run(output, main=is_main()):
        last = _last_checkpoint(output, settings) if args.resume and not args.pretrain else None
        torch.manual_seed(args.seed)
        network, architecture = _initial_network(stage, architecture, args, output if last else None)
        network.to(device)
        optimizer = build_optimizer(network, args.lr, args.lr_multi, args.weight_decay, fast)
        training = Training(
            _for_training(network, args.compile),
            build_criterion(network),
            optimizer,
            polynomial_decay(optimizer, len(loader) * args.epochs),
            schedule_interval,
            amp_dtype(args.amp, device),
        )
        if last:
            _take_state(training, last["training"], output / LAST)
        content = partial(network_content, network, architecture)
        log = TrainingLog(output, args.board_folder)
        log.settings(vars(args))
        say(_description(args, loader, training, device))

        def save() -> None:
            _save(output / LAST, content() | {"training": training.state_dict(), "settings": settings})

        def after_epoch() -> None:
            _keep_best(output, training.history, args.test_split, content())
            sheet = examples.draw(predictor(network), network.mask_threshold, device)
            _show(sheet, output, log, training.epoch * len(loader))

        validate = partial(_validate, network, photos, args, device)
        fit(training, loader, args.epochs, device, log, validate, save, 60 * args.save_every, after_epoch)
        log.close()
        say(f"examples of the last epoch: {output / EXAMPLES}; checkpoint: {output / BEST_MIOU}")
        wait_for_all()


def _last_checkpoint(output: Path, settings: dict) -> dict:
    """The checkpoint to go on from; UserError where it is not there or was made with other settings."""
    last = load_checkpoint(output / LAST, "train without --resume first")
    if not isinstance(last.get("training"), dict) or not isinstance(last.get("settings"), dict):
        raise UserError(f"{output / LAST} holds no training to go on with; train without --resume")
    before = last["settings"]
    changed = [f"{n} was {before.get(n)} and is {settings.get(n)}" for n in settings if before.get(n) != settings[n]]
    if changed:
        raise UserError(
            f"{output / LAST} was trained otherwise: {'; '.join(changed)}; use the same flags or another --output"
        )
    return last


def _take_state(training: Training, state: dict, file: Path) -> None:
    try:
        training.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # each part raises its own kinds
        raise UserError(
            f"the training in {file} is damaged ({type(error).__name__}: {reason(error)}); train without --resume"
        ) from None


def _initial_network(
    stage: int, architecture: Architecture, args: argparse.Namespace, resumed: Path | None
) -> tuple[nn.Module, Architecture]:
    """The network that training starts with: of the last checkpoint, of `--pretrain`, or new with CLIP's weights."""
    if resumed:
        return load_network(resumed / LAST, "train without --resume", architecture, stage)
    if args.pretrain:
        return load_network(_pretrain_file(args), "name another --pretrain, or leave it out", architecture, stage)
    return build_network(stage, architecture, pretrained=True), architecture


def _pretrain_file(args: argparse.Namespace) -> Path:
    """As published, a plain name is looked up in the output folder."""
    inside = Path(args.output) / args.pretrain
    return inside if inside.is_file() else Path(args.pretrain)


def _for_training(network: nn.Module, compiled: bool) -> nn.Module:
    """With several processes: gradients averaged and batch statistics shared."""
    if world_size() > 1:
        network = DistributedDataParallel(synchronise(network))
    if compiled:
        network.compile()  # in place: names stay as they are, evaluation is not compiled
    return network


def _validate(
    network: nn.Module, photos: dict[str, EvalPhotos], args: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Figures of each split by `<split>/<figure>`."""
    network.eval()
    figures = {}
    for name, samples in photos.items():
        loader = eval_loader(samples, args.batch_size, args.num_workers)
        outcomes = evaluate(predictor(network), loader, network.mask_threshold, device, f"validation on {name}")
        figures |= {f"{name}/{figure}": value for figure, value in summarise(outcomes).items()}
    return figures


def _save(path: Path, content: dict) -> None:
    if is_main():
        save_checkpoint(path, content)


def _keep_best(output: Path, history: list[dict], splits: list[str], content: dict) -> None:
    """The network of the best epoch so far by each figure, on the first of the validated splits; else of the last."""
    for name, figure in BEST.items():
        column = [line[f"{splits[0]}/{figure}"] if splits else line["epoch"] for line in history]
        if column[-1] > max(column[:-1], default=-1.0):
            _save(output / name, content | {"epoch": len(history), "figures": history[-1]})


def _show(sheet: np.ndarray, output: Path, log: TrainingLog, step: int) -> None:
    if is_main():
        save_png(output / EXAMPLES, sheet)
        log.picture("examples", sheet, step)


def _description(args: argparse.Namespace, loader: TrainLoader, training: Training, device: torch.device) -> str:
    whole = args.batch_size * world_size() * args.accumulate
    parts = f"{args.batch_size} x {world_size()} {device.type}"
    parts += f" x {args.accumulate} accumulated" if args.accumulate > 1 else ""
    start = f"from epoch {training.epoch + 1}, step {training.step + 1}" if training.epoch or training.step else "anew"
    return (
        f"training {start} to epoch {args.epochs}: {len(loader.samples)} refs, {len(loader)} steps an epoch, "
        f"batch {whole} ({parts}), checkpoints in {args.output}"
    )
