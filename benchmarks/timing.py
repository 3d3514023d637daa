"""Two ways to the same result, timed in turns in one run: times vary from machine to machine, ratios do not."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

Clock = Callable[[], float]
Results = Sequence[Sequence[torch.Tensor]]  # quantities, each of one or more tensors on a common scale


@dataclass(frozen=True)
class Setting:
    """The sizes of networks and inputs, and where they are computed."""

    folder: Path  # for files that a row needs
    device: torch.device
    batch_size: int  # of a training step
    irn_batch_size: int
    backbone: str = "clip-RN50"
    scorer: str = "ViT-B/32"
    hidden_dim: int = 1024
    input_size: int = 320
    photo_size: tuple[int, int] = (480, 640)
    irn_backbone: str = "resnet50"
    crop_size: int = 512  # of IRNet's training
    walk_size: tuple[int, int] = (80, 100)
    masked_photo_size: tuple[int, int] = (240, 320)  # of a pseudo mask: on 480 x 640 the dense walk takes 20 minutes


@dataclass(frozen=True)
class Pair:
    """Ours and the straightforward way. Each call gives the results of the same work, the first of the same inputs."""

    ours: Callable[[], Results]
    straightforward: Callable[[], Results]
    repeats: int = 5  # of the straightforward way; with 1, it is not run once untimed before
    ours_per_repeat: int = 1


def full_size(folder: str | Path, device: torch.device) -> Setting:
    """The networks and sizes of the paper; a CPU's memory is too small for the paper's batches."""
    if device.type == "cuda":
        return Setting(Path(folder), device, batch_size=48, irn_batch_size=32)
    return Setting(Path(folder), device, batch_size=8, irn_batch_size=4)


def seconds_of(work: Callable[[], Any], clock: Clock = time.perf_counter) -> tuple[float, Any]:
    """The time of a call, on a GPU until it has finished, and what it gave."""
    _wait_for_gpu()
    began = clock()
    results = work()
    _wait_for_gpu()
    return clock() - began, results


def median_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The median time of a call, after one that is not timed."""
    work()
    return median(seconds_of(work)[0] for _ in range(repeats))


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(pair: Pair, clock: Clock = time.perf_counter) -> dict[str, float]:
    """A row of the table: medians, their ratio with the spread of the ratios of neighbours, and `max_difference`.

    That is the largest difference of the first results in units of the largest value of their quantity.
    """
    found = pair.ours()
    first, expected = seconds_of(pair.straightforward, clock)
    difference = max(_difference(*quantity) for quantity in zip(found, expected, strict=True))
    del found, expected  # gradients, which are as large as the networks
    ours, theirs, ratios = [], [], []
    for _ in range(pair.repeats):
        theirs.append(first if pair.repeats == 1 else seconds_of(pair.straightforward, clock)[0])
        beside = [seconds_of(pair.ours, clock)[0] for _ in range(pair.ours_per_repeat)]
        ratios += [theirs[-1] / seconds for seconds in beside]
        ours += beside
    return {
        "ours_s": median(ours),
        "straightforward_s": median(theirs),
        "ratio": median(theirs) / median(ours),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "max_difference": difference,
    }


def _difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True)]
    scale = max(float(b.abs().max()) for _, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / (scale or 1)


def machine() -> str:
    """What the times were measured on, in a line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return f"CPU, threads: {threads}, PyTorch {torch.__version__}, load at the start: {load:.1f}"
