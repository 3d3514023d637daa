"""Pass 2: train the two branches on the IR labels, then measure the mean displacement. On one device.

A batch's losses divide by counts over all its pairs, and the whole training takes minutes on a GPU: the other
processes of a run wait, and what comes out does not depend on how many there are.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from IRNet.checkpoint import read_checkpoint, save_checkpoint
from IRNet.data import PlainSet, TrainingItem, TrainingSet, collate, list_refused
from IRNet.losses import AffinityDisplacementLoss
from IRNet.network import STRIDE, EdgeDisplacement, build_network
from IRNet.processes import threads
from utils.checkpoint import fill
from utils.distributed import usable_cores
from utils.errors import UserError, reason
from utils.log import say

# Kept quirk: the published optimiser takes its weight decay for the momentum too, so there is practically none.
MOMENTUM = 1e-4
DECAY_EXPONENT = 0.9
DISPLACEMENT_RATE = 10  # the displacement branch's rate, in units of the edge branch's


@dataclass(frozen=True)
class Schedule:
    """How to train. learning_rate: the edge branch's at the start. crop_size: in photo pixels, a multiple of 4."""

    epochs: int = 3
    batch_size: int = 32
    crop_size: int = 512
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    radius: int = 10
    seed: int = 0
    workers: int = 0

    def loader(self, dataset: Dataset, order: list[int] | None = None) -> DataLoader:
        """Batches in this order, without the last one where it is not full."""
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=order,
            num_workers=min(self.workers, usable_cores()),
            collate_fn=collate,
            drop_last=True,
        )


# A source needs room for the radius below it and on both sides: in a smaller crop there is no pair. In photo pixels.
SMALLEST_CROP = STRIDE * (2 * Schedule.radius - 1)


class Trainer:
    """Network, optimiser and place in the schedule; `state` and `restore` let an interrupted training go on."""

    def __init__(self, network: EdgeDisplacement, schedule: Schedule, items: int):
        self.network = network.train()
        self.criterion = AffinityDisplacementLoss(schedule.radius)
        self.rates = (schedule.learning_rate, schedule.learning_rate * DISPLACEMENT_RATE)
        branches = (network.edge_branch, network.displacement_branch)
        groups = [{"params": list(branch.parameters())} for branch in branches]
        self.optimizer = torch.optim.SGD(
            groups, lr=self.rates[0], momentum=MOMENTUM, weight_decay=schedule.weight_decay
        )
        self.total_steps = items // schedule.batch_size * schedule.epochs
        self.step_count = 0

    def step(self, photos: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """One update; returns the losses by name. photos: (B, 3, S, S). label: uint8 (B, S / 4, S / 4)."""
        factor = (1 - self.step_count / self.total_steps) ** DECAY_EXPONENT
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        losses = self.criterion(*self.network(photos), label)
        self.optimizer.zero_grad()
        losses["total"].backward()
        self.optimizer.step()
        self.step_count += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def state(self) -> dict[str, Any]:
        """What besides the network's tensors an interrupted training needs to go on, for `restore`."""
        return {"optimizer": self.optimizer.state_dict(), "step": self.step_count}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. A state that is none raises almost anything."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_count = int(state["step"])


def train(
    backbone: str,
    items: list[TrainingItem],
    label_dir: Path,
    checkpoint: Path,
    schedule: Schedule,
    device: torch.device,
) -> None:
    """Train on `items` and write `checkpoint`; goes on where an interrupted training's last epoch ended."""
    part = checkpoint.with_name(f"{checkpoint.name}.part")
    torch.manual_seed(schedule.seed)
    network = build_network(backbone, pretrained=not part.is_file())
    trainer = Trainer(network.to(device), schedule, len(items))
    identity = [backbone, str(replace(schedule, workers=0)), len(items)]
    done = _resume(part, network, trainer, identity)
    # The other half is for the loader: threads that outnumber the free cores wait for each other most of the time.
    with threads(max(1, usable_cores() // 2)):
        for epoch in range(done, schedule.epochs):
            _train_one_epoch(trainer, items, label_dir, schedule, epoch, device)
            save_checkpoint(part, backbone, network, {**trainer.state(), "epoch": epoch + 1, "identity": identity})
        network.mean_displacement.copy_(mean_displacement(network.eval(), items, schedule, device))
    save_checkpoint(checkpoint, backbone, network)
    part.unlink(missing_ok=True)


def _train_one_epoch(
    trainer: Trainer, items: list[TrainingItem], label_dir: Path, schedule: Schedule, epoch: int, device: torch.device
) -> None:
    dataset = TrainingSet(items, label_dir, schedule.crop_size, schedule.seed, epoch)
    order = list(range(len(items)))
    Random(f"{schedule.seed}/{epoch}").shuffle(order)
    sums: dict[str, torch.Tensor] = {}
    title = f"train_irn, epoch {epoch + 1}/{schedule.epochs}"
    loader = schedule.loader(dataset, order)
    batches = list_refused(tqdm(loader, title, unit="step", disable=None))
    for photos, label in batches:
        for name, loss in trainer.step(photos.to(device), label.to(device)).items():
            sums[name] = sums.get(name, 0) + loss / len(loader)
    if not sums:
        raise UserError("train_irn: no IR label could be used; the lines above say why")
    losses = {name: float(total) for name, total in sums.items()}
    say(" ".join([title, *(f"{name} {loss:.4f}" for name, loss in losses.items())]))
    if not np.isfinite(losses["total"]):
        raise UserError("the training diverged (its loss is not finite); give a lower --irn_learning_rate")


@torch.no_grad()
def mean_displacement(
    network: EdgeDisplacement, items: list[TrainingItem], schedule: Schedule, device: torch.device
) -> torch.Tensor:
    """The mean over pixels and photos of a batch, then over batches; float32 (2,), y and x."""
    loader = schedule.loader(PlainSet(items, schedule.crop_size))
    means = [
        network(photos.to(device)).displacement.mean(dim=(0, 2, 3))
        for (photos,) in list_refused(tqdm(loader, "train_irn, mean displacement", unit="batch", disable=None))
    ]
    if not means:
        raise UserError("train_irn: no photo of the list could be read")
    return torch.stack(means).mean(dim=0)


def _resume(part: Path, network: EdgeDisplacement, trainer: Trainer, identity: list) -> int:
    """Take up an interrupted training, if there is one; returns the number of its finished epochs."""
    if not part.is_file():
        return 0
    cure = "remove it to start afresh"
    content = read_checkpoint(part, cure)
    if content.get("identity") != identity:
        raise UserError(f"{part} is of a training with other flags or another list; {cure}")
    fill(network, content["network"], part, cure)
    try:
        trainer.restore(content)
        done = int(content["epoch"])
    except Exception as error:  # a damaged state can raise almost anything
        raise UserError(f"{part} holds no state of a training ({reason(error)}); {cure}") from None
    say(f"train_irn: going on after epoch {done} of {part}")
    return done
