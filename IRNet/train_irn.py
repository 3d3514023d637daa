"""Pass 2: train the two branches on the IR labels, then measure the mean displacement.

Several processes share every batch and divide by the pairs of all of them, so they end where one process does.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset.artifacts import png_path
from dataset.passes import Outcomes, PhotoRefs, map_photos
from IRNet.data import Corners, Crops, Run, read_labelled
from IRNet.losses import RADIUS, affinity_displacement_losses
from IRNet.network import STRIDE, EdgeDisplacement, build_network
from utils.checkpoint import fill, load_checkpoint, save_checkpoint
from utils.distributed import all_gather, barrier, is_main, shard, usable_cores, world_size
from utils.errors import UserError, resuming
from utils.log import log
from utils.resume import START_OVER, fingerprint, start_pass

# A source needs room for the radius below it and on both sides: a smaller crop has no pair. In photo pixels.
SMALLEST_CROP = STRIDE * (2 * RADIUS - 1)


@dataclass(frozen=True)
class Schedule:
    """How to train. batch_size: of all processes together. crop_size: in photo pixels, a multiple of 4."""

    backbone: str
    epochs: int
    batch_size: int
    crop_size: int
    learning_rate: float  # the edge branch's at the start
    weight_decay: float
    seed: int


def train_irn(photos: list[PhotoRefs], label_dir: Path, checkpoint: Path, schedule: Schedule, run: Run) -> None:
    """Train on the IR labels that exist and write `checkpoint`; a batch has at most as many crops as there are labels.

    To resume, a finished checkpoint is kept, and an unfinished training continues after its last epoch.
    """
    refs = [(name, path) for path, names in photos for name in names]
    items = [(name, path) for name, path in refs if png_path(label_dir, name).is_file()]
    schedule = replace(schedule, batch_size=min(schedule.batch_size, len(items)))
    if not items:
        raise UserError(f"{label_dir} holds no IR label of --train_list; run --cam_to_ir_label_pass True")
    if schedule.batch_size < world_size():
        raise UserError(f"{world_size()} processes cannot share a batch of {schedule.batch_size}; use fewer GPUs")
    if len(items) < len(refs):
        log(f"train_irn: {len(refs) - len(items)} refs have no IR label and are left out")
    part = checkpoint.with_name(f"{checkpoint.name}.part")
    labels = fingerprint(png_path(label_dir, name) for name, _ in items)
    made_from = asdict(schedule) | {"irn_weights_name": checkpoint.name, "IR labels": labels}
    start_pass(run.work_space / "train_irn.json", made_from, [checkpoint, part], run.resume)
    if checkpoint.is_file():
        log(f"train_irn: {checkpoint} is finished and kept")
    else:
        items = usable_items(items, label_dir, run)
        schedule = replace(schedule, batch_size=min(schedule.batch_size, len(items)))
        network = train(items, label_dir, part, schedule, run)
        if is_main():
            save_checkpoint(checkpoint, {"backbone": schedule.backbone, "network": network.state_dict()})
    if is_main():
        part.unlink(missing_ok=True)
    barrier()


def usable_items(items: list[tuple[str, Path]], label_dir: Path, run: Run) -> list[tuple[str, Path]]:
    """Those whose label and photo can be read and fit; the others are refused now, not in the middle of an epoch."""
    each = [(path, [name]) for name, path in items]
    outcomes = map_photos("train_irn", shard(each), partial(check_label, label_dir), run.device, run.workers)
    usable = [(name, path) for name, path in items if outcomes[name] is True]
    if len(usable) < world_size():
        raise UserError(f"train_irn: {len(items) - len(usable)} refs were refused; the lines above say why")
    return usable


def check_label(label_dir: Path, path: Path, names: list[str]) -> Outcomes:
    for name in names:
        read_labelled(path, label_dir, name)
        yield name, True


def train(items: list[tuple[str, Path]], label_dir: Path, part: Path, schedule: Schedule, run: Run) -> EdgeDisplacement:
    """Train on `items`, name and photo of each ref. `part` holds an unfinished training, or will."""
    torch.manual_seed(schedule.seed)
    network = build_network(schedule.backbone, pretrained=not part.is_file()).to(run.device).train()
    optimizer = build_optimizer(network, schedule.learning_rate, schedule.weight_decay)
    done = 0
    if part.is_file():
        with resuming():
            content = load_checkpoint(part, START_OVER)
            if not {"network", "optimizer", "epoch"} <= content.keys():
                raise UserError(f"{part} does not hold an unfinished training; {START_OVER}")
            fill(network, content["network"], part, START_OVER)
        optimizer.load_state_dict(content["optimizer"])
        done = content["epoch"]
        log(f"train_irn: resuming after epoch {done}")
    model = DistributedDataParallel(network) if world_size() > 1 else network
    used = len(items) // schedule.batch_size * schedule.batch_size  # as published, a batch that is not full is left out
    for epoch in range(done, schedule.epochs):
        order = list(range(len(items)))
        Random(f"{schedule.seed}/{epoch}").shuffle(order)
        crops = Crops(items, label_dir, schedule.crop_size, schedule.seed, epoch)
        loader = batch_loader(crops, order[:used], schedule.batch_size, run.workers)
        train_one_epoch(model, optimizer, loader, epoch, schedule.epochs, run.device)
        if is_main():
            content = {"backbone": schedule.backbone, "network": network.state_dict()}
            save_checkpoint(part, content | {"optimizer": optimizer.state_dict(), "epoch": epoch + 1})
    corners = Corners(items[:used], label_dir, schedule.crop_size)
    loader = batch_loader(corners, range(len(corners)), schedule.batch_size, run.workers)
    network.mean_displacement.copy_(mean_displacement(network.eval(), loader, run.device))
    return network


def build_optimizer(network: EdgeDisplacement, learning_rate: float, weight_decay: float) -> SGD:
    """SGD over the two branches. learning_rate: the edge branch's at the start, kept as each group's `initial_lr`."""
    rates = {network.edge_branch: learning_rate, network.displacement_branch: learning_rate * 10}
    groups = [{"params": list(b.parameters()), "lr": rate, "initial_lr": rate} for b, rate in rates.items()]
    # Kept quirk: the published optimiser takes its weight decay, 1e-4, for the momentum too: there is practically none.
    return SGD(groups, momentum=1e-4, weight_decay=weight_decay)


def batch_loader(samples: Dataset, order: Sequence[int], batch_size: int, workers: int) -> DataLoader:
    """This process's part of every batch of `order`; of a last one that is short it may have none."""
    batches = [shard(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    return DataLoader(samples, batch_sampler=list(filter(None, batches)), num_workers=min(workers, usable_cores()))


def train_one_epoch(
    model: nn.Module, optimizer: Optimizer, loader: DataLoader, epoch: int, epochs: int, device: torch.device
) -> None:
    """Train on every batch once and log the mean losses; UserError if the training diverges."""
    title = f"train_irn, epoch {epoch + 1}/{epochs}"
    sums: Counter = Counter()
    for step, (photos, label) in enumerate(tqdm(loader, title, unit="step", disable=None if is_main() else True)):
        progress = (epoch + step / len(loader)) / epochs
        sums.update(train_step(model, optimizer, progress, photos.to(device), label.to(device)))
    everyones = all_gather({name: float(total) / len(loader) for name, total in sums.items()})
    losses = {name: sum(own[name] for own in everyones) for name in sums}
    log(" ".join([title, *(f"{name} {loss:.4f}" for name, loss in losses.items())]))
    if not math.isfinite(losses["total"]):
        raise UserError("the training diverged (its loss is not finite); give a lower --irn_learning_rate")


def train_step(
    model: nn.Module, optimizer: Optimizer, progress: float, photos: Tensor, label: Tensor
) -> dict[str, Tensor]:
    """One update at `progress`, 0..1, of the training; returns this process's losses by name.

    photos: (B, 3, S, S). label: uint8 (B, S / 4, S / 4).
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 - progress) ** 0.9
    losses = affinity_displacement_losses(*model(photos), label)
    optimizer.zero_grad()
    (losses["total"] * world_size()).backward()  # DistributedDataParallel averages gradients that are to be summed
    optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}


@torch.no_grad()
def mean_displacement(network: EdgeDisplacement, loader: DataLoader, device: torch.device) -> Tensor:
    """The mean over all pixels and refs of the `Corners` of all processes; float32 (2,), y and x."""
    # Summed, not collected: small tensors that stay between large ones that come and go cost gigabytes of memory.
    total, count = torch.zeros(2, dtype=torch.float64), 0
    for photos, refs in tqdm(loader, "train_irn, mean displacement", disable=None if is_main() else True):
        means = network.displacement_branch(network.backbone(photos.to(device))).mean(dim=(2, 3))
        total += refs.double() @ means.double().cpu()
        count += int(refs.sum())
    totals, counts = zip(*all_gather((total, count)), strict=True)
    return (sum(totals) / sum(counts)).float()
