"""A training of either stage, put together from the command line's settings: the scripts differ in data and losses."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from dataset.loading import TrainLoader, eval_loader
from dataset.references import Split
from dataset.samples import EvalPhotos
from model.build import Architecture, Network, build_network, load_network, network_content
from model.examples import Examples
from model.predict import predict_with
from model.training_folder import TrainingFolder
from utils.checkpoint import find_checkpoint
from utils.distributed import is_main, wait_for_all, world_size
from utils.engine import Callbacks, Criterion, Training, fit
from utils.evaluator import evaluate
from utils.files import owned_by_this_run
from utils.log import TrainingLog, say
from utils.metrics import summarise
from utils.optimisation import build_optimizer, polynomial_decay
from utils.sync_batch_norm import synchronise

# Flags that a resumed training must share with the one it goes on from; the others may change on the way.
FIXED = ("dataset", "split_by", "size", "max_query_len", "batch_size", "accumulate", "epochs", "seed", "compile", "lr")
FIXED += ("lr_multi", "weight_decay", "w1", "w4", "w5", "negative_samples", "scorer", "model_ema")


def train(
    stage: int,
    args: argparse.Namespace,
    build_criterion: Callable[[Network], Criterion],
    loader: TrainLoader,
    validation: Sequence[Split],
    device: torch.device,
    amp: torch.dtype | None,
    schedule_interval: Literal["step", "epoch"],
    fast: Sequence[str] = (),
) -> None:
    """Build or resume a training and run it to its end; `args` are the flags of the training group.

    amp: precision of the network's products. schedule_interval: what the schedule counts. fast: see `build_optimizer`.
    """
    settings = {name: getattr(args, name) for name in FIXED if hasattr(args, name)}
    folder = TrainingFolder(args.output, settings | {"amp": str(amp), "processes": world_size()})
    validated = {split.name: _batches(split, args) for split in validation}
    examples = Examples([*validation, loader.samples.split][0], args.size, args.max_query_len)
    with owned_by_this_run(args.output, main=is_main()):
        last = folder.read_last() if args.resume and (folder.last.is_file() or not args.pretrain) else None
        torch.manual_seed(args.seed)
        network = _initial_network(stage, args, folder if last else None).to(device)
        optimizer = build_optimizer(network, args.lr, args.lr_multi, args.weight_decay, fast)
        schedule = polynomial_decay(optimizer, len(loader) * args.epochs)
        parallel, criterion = _for_training(network, args.compile), build_criterion(network)
        training = Training(parallel, criterion, optimizer, schedule, schedule_interval, amp)
        if last:
            folder.restore(training, last)
        say(_description(args, loader, training))
        log = TrainingLog(args.output, args.board_folder)
        log.settings(vars(args))
        callbacks = TrainingCallbacks(
            60 * args.save_every, network, training, validated, examples, folder, log, len(loader)
        )
        fit(training, loader, args.epochs, log, callbacks)
        log.close()
        say(f"examples of the last epoch: {folder.examples}; checkpoint: {folder.best}")
        wait_for_all()


def _batches(split: Split, args: argparse.Namespace) -> DataLoader:
    photos = EvalPhotos(split, args.size, args.max_query_len, cache_images=args.cache_images)
    return eval_loader(photos, args.batch_size, args.num_workers)


def _initial_network(stage: int, args: argparse.Namespace, resumed: TrainingFolder | None) -> Network:
    """The network that training starts with: of the last checkpoint, of `--pretrain`, or new with CLIP's weights."""
    described = Architecture.of_flags(args)
    if not (resumed or args.pretrain):
        return build_network(stage, described, pretrained=True)
    file = resumed.last if resumed else find_checkpoint(args.output, args.pretrain)
    cure = "train without --resume" if resumed else "name another --pretrain, or leave it out"
    network = load_network(file, cure, described, stage)
    network.architecture.require_flags(args, file)
    network.architecture = replace(network.architecture, input_size=args.size, query_length=args.max_query_len)
    return network


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
class TrainingCallbacks(Callbacks):
    """What happens around the steps of a training: figures, checkpoints, pictures."""

    save_every: float  # seconds
    network: Network  # without what several processes and compiling put around it
    training: Training
    validated: dict[str, DataLoader]  # batches of photos, by split
    examples: Examples
    folder: TrainingFolder
    log: TrainingLog
    steps: int  # of an epoch

    def validate(self) -> dict[str, float]:
        """Figures of each validated split by `<split>/<figure>`."""
        self.network.eval()
        predict, threshold, device = predict_with(self.network), self.network.mask_threshold, self.training.device
        figures = {}
        for name, batches in self.validated.items():
            outcomes = evaluate(predict, batches, threshold, device, f"validation on {name}")
            figures |= {f"{name}/{figure}": value for figure, value in summarise(outcomes).items()}
        return figures

    def on_epoch(self) -> None:
        """Keep the network if it is the best so far, on the first of the validated splits, and draw the examples."""
        split = next(iter(self.validated), None)
        self.folder.save_best(network_content(self.network), self.training.history, split)
        sheet = self.examples.draw(predict_with(self.network), self.network.mask_threshold, self.training.device)
        self.folder.save_examples(sheet)
        self.log.picture("examples", sheet, self.training.epoch * self.steps)

    def save(self) -> None:
        self.folder.save_last(network_content(self.network), self.training)
