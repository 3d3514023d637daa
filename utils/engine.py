"""The training loop of both stages. It knows networks, losses by name and batches, and nothing of the task."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

import torch
from torch import nn
from tqdm import tqdm

from utils.distributed import is_main, keeping_gradients, world_size
from utils.end_request import EndRequest
from utils.errors import UserError
from utils.log import TrainingLog, say

LOG_EVERY = 20  # steps between two looks at the losses, each of which waits for the device


class Loader(Protocol):
    """Its length counts steps of the optimiser; `from_step` gives `accumulate` batches for each."""

    accumulate: int

    def __len__(self) -> int: ...
    def from_step(self, epoch: int, step: int) -> Any: ...
    def describe(self, references: list[int]) -> str: ...


class Criterion:
    """Losses by name, from a network's output and a batch, and the weight of each in their sum."""

    def __init__(self, weights: dict[str, float]):
        self.weights = weights

    def __call__(self, output: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each step of the optimiser."""

    def training_state(self) -> dict[str, Any]:
        """What a checkpoint must keep of it for a training to go on."""
        return {}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Takes what `training_state` gave."""


class Callbacks(Protocol):
    """What the loop asks of whoever runs it."""

    save_every: float  # seconds between two calls of `save` within an epoch

    def validate(self) -> dict[str, float]:
        """Figures by name, for the epoch's line of the log."""

    def on_epoch(self) -> None:
        """Called after each epoch, when its line is in the training's history."""

    def save(self) -> None:
        """Keep the whole training: before and after each validation, in between, and when a signal asks to end."""


@dataclass
class Training:
    """Everything that a training consists of and that its last checkpoint keeps."""

    network: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    schedule_interval: Literal["step", "epoch"] = "step"
    amp: torch.dtype | None = None  # of the network's matrix products; losses are in float32
    epoch: int = 0
    step: int = 0  # steps done within the epoch
    totals: dict[str, float] = field(default_factory=dict)  # summed losses of the epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)  # one line an epoch

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.schedule.state_dict(),
            "criterion": self.criterion.training_state(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "totals": self.totals,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Everything but the network, which is loaded where it is built."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["lr_scheduler"])
        self.criterion.load_training_state(state["criterion"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.totals, self.history = dict(state["totals"]), list(state["history"])


def amp_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The type behind `--amp auto|off|bf16|fp16`; auto is bf16 on a GPU that has it, else off."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def fit(training: Training, loader: Loader, epochs: int, log: TrainingLog, callbacks: Callbacks) -> None:
    """Train to the end of `epochs`, from wherever `training` stands.

    Raises InterruptionError, with the training saved, when a signal asked to end, and UserError, with the last
    checkpoint untouched, when a loss is not finite.
    """
    with EndRequest() as request:
        while training.epoch < epochs:
            began = time.monotonic()
            _train_one_epoch(training, loader, log, callbacks, request)
            callbacks.save()  # validation can take long
            line = {name: total / len(loader) for name, total in training.totals.items()}
            rates = {f"lr/{number}": group["lr"] for number, group in enumerate(training.optimizer.param_groups)}
            figures = callbacks.validate()
            training.epoch, training.step, training.totals = training.epoch + 1, 0, {}
            if training.schedule_interval == "epoch":
                training.schedule.step()
            seconds = {"seconds": round(time.monotonic() - began, 1)}
            training.history.append({"epoch": training.epoch, **line, **rates, **figures, **seconds})
            callbacks.on_epoch()
            callbacks.save()
            log.epoch(training.history, training.epoch * len(loader))
            say(_summary(training.history[-1], epochs))
            if training.epoch < epochs and request.made(training.device):
                request.obey()


def _train_one_epoch(
    training: Training, loader: Loader, log: TrainingLog, callbacks: Callbacks, request: EndRequest
) -> None:
    training.network.train()
    meter = _LossMeter(training, loader, log)
    saved = time.monotonic()
    batches = iter(loader.from_step(training.epoch, training.step))
    title = f"epoch {training.epoch + 1}"
    bar = tqdm(total=len(loader), initial=training.step, desc=title, unit="step", disable=None if is_main() else True)
    with bar:
        while training.step < len(loader):
            meter.add(*optimise(training, islice(batches, loader.accumulate), loader.accumulate))
            training.step += 1
            bar.update()
            if training.step % LOG_EVERY == 0 or training.step == len(loader):
                bar.set_postfix_str(meter.look())
            # Processes agree on it every few steps only, so that all of them end after the same step.
            if (world_size() == 1 or training.step % LOG_EVERY == 0) and request.made(training.device):
                meter.look()
                callbacks.save()
                request.obey()
            if time.monotonic() - saved > callbacks.save_every:
                meter.look()
                callbacks.save()
                saved = time.monotonic()


def optimise(
    training: Training, batches: Iterable[dict[str, Any]], count: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One step of the optimiser along the mean gradient of `count` batches; their mean losses, and their refs."""
    means: dict[str, torch.Tensor] = {}
    references = []
    training.optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(batches, start=1):
        with keeping_gradients(training.network, number < count):
            losses = _weighted_losses(training, to_device(batch, training.device))
            training.scaler.scale(losses["loss"] / count).backward()
        means = {name: means.get(name, 0) + loss.detach() / count for name, loss in losses.items()}
        references.append(batch["ids"]["reference"])
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.criterion.after_step()
    if training.schedule_interval == "step":
        training.schedule.step()
    return means, torch.cat(references)


def _weighted_losses(training: Training, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The losses by name, and their weighted sum `loss`."""
    with torch.autocast(batch["image"].device.type, training.amp, enabled=training.amp is not None):
        output = training.network(batch["image"], batch["tokens"])
    losses = training.criterion(output, batch)
    return {"loss": sum(training.criterion.weights[name] * value for name, value in losses.items())} | losses


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The tensors of a batch on the device; dictionaries of ids stay where they are, for looking things up."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


class _LossMeter:
    """Sums losses by name without waiting for the device, until somebody looks."""

    def __init__(self, training: Training, loader: Loader, log: TrainingLog):
        self.training, self.loader, self.log = training, loader, log
        self.pending: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
        self.latest: dict[str, float] = {}

    def add(self, losses: dict[str, torch.Tensor], references: torch.Tensor) -> None:
        self.pending.append((losses, references))

    def look(self) -> str:
        """Take the pending losses into the epoch's totals; UserError with the batch's refs where one is not finite."""
        for losses, references in self.pending:
            values = {name: float(value) for name, value in losses.items()}
            if not all(map(math.isfinite, values.values())):
                refs = self.loader.describe(references.tolist())
                raise UserError(
                    f"the loss is not finite ({values}) for the refs {refs}; lower --lr or check these refs"
                )
            for name, value in values.items():
                self.training.totals[name] = self.training.totals.get(name, 0.0) + value
            self.latest = values
        self.pending.clear()
        step = self.training.epoch * len(self.loader) + self.training.step
        self.log.scalars({f"train/{name}": value for name, value in self.latest.items()}, step)
        return " ".join(f"{name} {value:.3f}" for name, value in self.latest.items())


def _summary(line: dict[str, Any], epochs: int) -> str:
    shown = [f"{name} {line[name]:.4g}" for name in line if name.endswith(("loss", "mIoU", "PointM", "Hit"))]
    return f"epoch {line['epoch']} of {epochs}: {', '.join(shown)} ({line['seconds']} s)"
