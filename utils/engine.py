"""The training loop of both stages, with its optimiser, schedule and precision. It knows nothing of the task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.distributed import accumulating, is_main
from utils.errors import UserError
from utils.log import TrainingLog

LOG_EVERY = 20  # steps between two readings of the losses, each of which waits for the device


class Criterion:
    """Named losses of a network's output and a batch, and the weight of each in their sum."""

    teacher: nn.Module | None = None  # a moving average of the network, where the losses have one

    def __init__(self, weights: dict[str, float]):
        self.weights = weights

    def __call__(self, output: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Unweighted losses, scalars by name."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each step of the optimiser."""


class Precision:
    """What `--amp off|bf16|fp16` asks for: the type of the network's matrix products, and fp16's gradient scaler."""

    def __init__(self, name: str, device: torch.device):
        self.dtype = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def build_optimizer(
    network: nn.Module,
    lr: float,
    lr_multi: float,
    weight_decay: float,
    fast: Sequence[str] = (),
    slow_slopes: bool = False,
) -> torch.optim.AdamW:
    """AdamW with the backbone at `lr * lr_multi` and everything else at `lr` (paper section 4.1).

    Parameters without gradient are in no group. A parameter of the backbone whose name ends in one of `fast` learns at
    the full rate. slow_slopes: the slopes of PReLUs learn at the backbone's.
    """
    slopes = {module.weight for module in network.modules() if isinstance(module, nn.PReLU)} if slow_slopes else set()
    groups: tuple[list, list] = ([], [])
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            slow = name.startswith("backbone.") and not name.endswith(tuple(fast))
            groups[0 if slow or parameter in slopes else 1].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[0], "lr": lr * lr_multi}, {"params": groups[1], "lr": lr}],
        weight_decay=weight_decay,
        fused=True,  # one kernel for all parameters
    )


def polynomial_decay(
    optimizer: torch.optim.Optimizer, total_steps: int, hold: int = 1
) -> torch.optim.lr_scheduler.LambdaLR:
    """Multiplies the rates by (1 - n / total_steps)^0.9 after `hold` times n steps, and by 0 beyond the end."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step // hold / total_steps) ** 0.9)


@dataclass
class Training:
    """A network in training with all that changes beside it: what is stepped, saved after an epoch, and restored."""

    network: nn.Module
    parallel: nn.Module  # the network as it is stepped, see `data_parallel`
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler  # advanced after each step
    precision: Precision
    accumulate: int = 1  # batches a step
    history: list[dict[str, Any]] = field(default_factory=list)  # a line of the log for each finished epoch

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self.schedule.last_epoch

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds beside the network, by name; each has a `state_dict`."""
        parts = {"optimizer": self.optimizer, "lr_scheduler": self.schedule, "scaler": self.precision.scaler}
        return parts | ({"criterion": self.criterion.teacher} if self.criterion.teacher else {})


def steps_per_epoch(loader: DataLoader, accumulate: int) -> int:
    """Steps of the optimiser, each over `accumulate` batches; the last one may have fewer."""
    return math.ceil(len(loader) / accumulate)


def train_one_epoch(training: Training, loader: DataLoader, training_log: TrainingLog) -> dict[str, float]:
    """Train on every batch once; returns the means of the losses and of their weighted sum `loss`, and `lr/<group>`.

    Raises UserError, naming the refs of the batch, when a loss is not finite.
    """
    training.parallel.train()
    read: list[dict[str, float]] = []  # losses by step
    waiting = []
    steps = steps_per_epoch(loader, training.accumulate)
    title = f"epoch {len(training.history) + 1}"
    bar = tqdm(total=steps, desc=title, unit="step", disable=None if is_main() else True)
    batches = iter(loader)
    for step in range(1, steps + 1):
        group = list(islice(batches, training.accumulate))
        waiting.append((train_step(training, group), [ref_id for batch in group for ref_id in batch["ref_id"]]))
        training.schedule.step()
        bar.update()
        if step % LOG_EVERY == 0 or step == steps:
            read += [read_losses(*losses_and_refs) for losses_and_refs in waiting]
            waiting.clear()
            bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in read[-1].items()))
            training_log.scalars({f"train/{name}": v for name, v in read[-1].items()}, training.step)
    bar.close()
    means = {name: sum(values[name] for values in read) / steps for name in read[-1]}
    return means | {f"lr/{number}": group["lr"] for number, group in enumerate(training.optimizer.param_groups)}


def train_step(training: Training, batches: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One step of the optimiser along the mean gradient of the batches; returns their mean losses, detached."""
    criterion, precision = training.criterion, training.precision
    means: dict[str, torch.Tensor] = {}
    training.optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(batches, start=1):
        # `ids` is a dictionary and stays on the CPU, where sentences are looked up.
        tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        batch = batch | {name: value.to(precision.device, non_blocking=True) for name, value in tensors.items()}
        with accumulating(training.parallel, number < len(batches)):
            with precision.autocast():
                output = training.parallel(batch["image"], batch["tokens"])
            losses = criterion(output, batch)
            losses["loss"] = sum(criterion.weights[name] * value for name, value in losses.items())
            precision.scaler.scale(losses["loss"] / len(batches)).backward()
        for name, value in losses.items():
            means[name] = means.get(name, 0) + value.detach() / len(batches)
    precision.scaler.step(training.optimizer)
    precision.scaler.update()
    criterion.after_step()
    return means


def read_losses(losses: dict[str, torch.Tensor], ref_ids: list[str]) -> dict[str, float]:
    """The losses of a step as numbers; waits for the device. UserError with the step's refs where one is not finite."""
    values = {name: float(value) for name, value in losses.items()}
    if not all(map(math.isfinite, values.values())):
        words = f"the loss is not finite ({values}) for the refs {', '.join(ref_ids)}"
        raise UserError(f"{words}; lower --lr, or check these refs")
    return values
