"""A training of either stage, put together from the command line's settings: the scripts differ in data and losses."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dataset.loading import TrainLoader, eval_loader
from dataset.references import Split
from dataset.samples import EvalPhotos
from model.build import Architecture, Network, build_network, load_network, network_content
from model.examples import Examples
from model.predict import predict_with
from model.training_folder import TrainingFolder
from utils.checkpoint import find_checkpoint
from utils.distributed import is_main, wait_for_all, world_size
from utils.engine import Callbacks, Criterion, Training, amp_dtype, fit
from utils.evaluator import evaluate
from utils.files import owned_by_this_run
from utils.log import TrainingLog, say
from utils.metrics import summarise
from utils.optimisation import build_optimizer, polynomial_decay
from utils.sync_batch_norm import synchronise

# Settings that a resumed training must share with the one it goes on from; the others may change on the way.
FIXED = ("dataset", "split_by", "size", "max_query_len", "batch_size", "accumulate", "epochs", "seed", "amp", "compile")
FIXED += ("lr", "lr_multi", "weight_decay", "w1", "w4", "w5", "negative_samples", "model_ema")


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
    """Build or resume a training and run it to its end; `args` are the flags of the training group.

    schedule_interval: what the schedule counts. fast: see `build_optimizer`.
    """
    settings = {name: getattr(args, name) for name in FIXED if hasattr(args, name)} | {"processes": world_size()}
    folder, photos = TrainingFolder(args.output, settings), _validation_photos(validation, args)
    examples = Examples([*validation, loader.samples.split][0], args.size, args.max_query_len)
    with owned_by_this_run(args.output, main=is_main()):
        last = folder.read_last() if args.resume and not args.pretrain else None
        torch.manual_seed(args.seed)
        network, architecture = _initial_network(stage, architecture, args, folder if last else None)
        network.to(device)
        optimizer = build_optimizer(network, args.lr, args.lr_multi, args.weight_decay, fast)
        schedule = polynomial_decay(optimizer, len(loader) * args.epochs)
        training = Training(
            _for_training(network, args.compile),
            build_criterion(network),
            optimizer,
            schedule,
            schedule_interval,
            amp_dtype(args.amp, device),
        )
        if last:
            folder.restore(training, last)
        say(_description(args, loader, training))
        log = TrainingLog(args.output, args.board_folder)
        log.settings(vars(args))
        run = Run(args, network, architecture, training, loader, photos, examples, folder, log)
        fit(training, loader, args.epochs, log, run)
        log.close()
        say(f"examples of the last epoch: {folder.examples}; checkpoint: {folder.best}")
        wait_for_all()


def _validation_photos(splits: Sequence[Split], args: argparse.Namespace) -> dict[str, EvalPhotos]:
    return {
        split.name: EvalPhotos(split, args.size, args.max_query_len, cache_images=args.cache_images) for split in splits
    }


def _initial_network(
    stage: int, architecture: Architecture, args: argparse.Namespace, resumed: TrainingFolder | None
) -> tuple[Network, Architecture]:
    """The network that training starts with: of the last checkpoint, of `--pretrain`, or new with CLIP's weights."""
    if resumed:
        return load_network(resumed.last, "train without --resume", architecture, stage)
    if args.pretrain:
        file = find_checkpoint(args.output, args.pretrain)
        return load_network(file, "name another --pretrain, or leave it out", architecture, stage)
    return build_network(stage, architecture, pretrained=True), architecture


def _for_training(network: Network, compiled: bool) -> nn.Module:
    """With several processes: gradients averaged and batch statistics shared."""
    if world_size() > 1:
        network = DistributedDataParallel(synchronise(network))
    if compiled:
        network.compile()  # in place: names stay as they are, evaluation is not compiled
    return network


def _description(args: argparse.Namespace, loader: TrainLoader, training: Training) -> str:
    whole = args.batch_size * world_size() * args.accumulate
    parts = f"{args.batch_size} x {world_size()} {training.device.type}"
    parts += f" x {args.accumulate} accumulated" if args.accumulate > 1 else ""
    start = f"from epoch {training.epoch + 1}, step {training.step + 1}" if training.epoch or training.step else "anew"
    return (
        f"training {start} to epoch {args.epochs}: {len(loader.samples)} refs, {len(loader)} steps an epoch, "
        f"batch {whole} ({parts}), checkpoints in {args.output}"
    )


@dataclass
class Run(Callbacks):
    """What happens around the steps of a training: figures, checkpoints, pictures."""

    args: argparse.Namespace
    network: Network  # as it is without what several processes and compiling put around it
    architecture: Architecture
    training: Training
    loader: TrainLoader
    photos: dict[str, EvalPhotos]
    examples: Examples
    folder: TrainingFolder
    log: TrainingLog

    def __post_init__(self) -> None:
        self.save_every = 60 * self.args.save_every

    def validate(self) -> dict[str, float]:
        """Figures of each validated split by `<split>/<figure>`."""
        self.network.eval()
        predict, threshold, device = predict_with(self.network), self.network.mask_threshold, self.training.device
        figures = {}
        for name, photos in self.photos.items():
            batches = eval_loader(photos, self.args.batch_size, self.args.num_workers)
            outcomes = evaluate(predict, batches, threshold, device, f"validation on {name}")
            figures |= {f"{name}/{figure}": value for figure, value in summarise(outcomes).items()}
        return figures

    def on_epoch(self) -> None:
        """Keep the network if it is the best so far, on the first of the validated splits, and draw the examples."""
        split = next(iter(self.photos), None)
        self.folder.save_best(network_content(self.network, self.architecture), self.training.history, split)
        sheet = self.examples.draw(predict_with(self.network), self.network.mask_threshold, self.training.device)
        self.folder.save_examples(sheet)
        self.log.picture("examples", sheet, self.training.epoch * len(self.loader))

    def save(self) -> None:
        self.folder.save_last(network_content(self.network, self.architecture), self.training)
