"""Two ways to the same result, timed in turns in one run: seconds differ between machines more than ratios do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.memory import keep_freed_memory

Results = Sequence[Sequence[torch.Tensor]]  # quantities, each of one or more tensors on a common scale


@dataclass(frozen=True)
class Setting:
    """The sizes of networks and inputs, and where they are computed."""

    folder: Path  # for files that a row needs
    device: torch.device
    batch_size: int  # of a training step
    backbone: str = "clip-RN50"
    scorer: str = "ViT-B/32"
    resnet: str = "resnet50"  # IRNet's
    hidden_dim: int = 1024
    input_size: int = 320  # pixels
    crop_size: int = 512  # pixels, of IRNet's training
    photo_size: tuple[int, int] = (480, 640)  # height, width
    walk_size: tuple[int, int] = (80, 100)
    masked_photo_size: tuple[int, int] = (240, 320)  # of a pseudo mask: on 480 x 640 the dense walk takes 20 minutes


@dataclass(frozen=True)
class Pair:
    """Ours and the straightforward way. Each call returns the results of the same work on the same inputs."""

    ours: Callable[[], Results]
    straightforward: Callable[[], Results] | None  # None where nothing is gained but in parts with rows of their own
    count: int = 1  # how many of `unit` a call works through
    unit: str = "refs"
    precision: str | None = "float32"  # of our dense products: float32, tf32 or bf16; None: there are none
    repeats: int = 5  # of the straightforward way; if 1, its only run is also the timed one
    ours_per_repeat: int = 1


def measure(row: Callable[[Setting], Pair], setting: Setting) -> dict[str, float | str]:
    """The row of the table that `row` describes; in a process of its own, it shares no memory with other rows."""
    keep_freed_memory()  # as every script that computes does
    return compare(row(setting), setting.device)


def compare(pair: Pair, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> dict[str, float | str]:
    """A row of the table. Of ours: median seconds, `unit` per second, peak memory, and the part of the machine's peak.

    Peak memory is the GPU's, or the whole process's. The machine's peak is that of a large matrix product of the same
    precision; only products and convolutions are counted. Of the straightforward way: median seconds, their ratio with
    the range of the ratios of neighbours, and `max_difference`, the largest difference of the first results, relative
    to the largest value of their quantity.
    """

    def timed(work: Callable[[], Results]) -> tuple[float, Results]:
        synchronise(device)
        start = clock()
        results = work()
        synchronise(device)
        return clock() - start, results

    known = {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * prod(x) * weight[0]}  # of shapes
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        found = pair.ours()
    row: dict[str, float | str] = {}
    if pair.straightforward:
        first, expected = timed(pair.straightforward)
        row["max_difference"] = largest_difference(found, expected)
        del expected
    del found  # gradients, which are as large as the networks
    ours, theirs, ratios, peaks = [], [], [], []
    for _ in range(pair.repeats):
        if pair.straightforward:
            theirs.append(first if pair.repeats == 1 else timed(pair.straightforward)[0])
        reset_peak_memory(device)
        beside = [timed(pair.ours)[0] for _ in range(pair.ours_per_repeat)]
        peaks.append(peak_memory(device))
        ratios += [theirs[-1] / seconds for seconds in beside] if theirs else []
        ours += beside
    if theirs:
        ratio = median(theirs) / median(ours)
        row |= {"straightforward_s": median(theirs), "ratio": ratio, "ratio_min": min(ratios), "ratio_max": max(ratios)}
    row |= {"ours_s": median(ours), "per_second": pair.count / median(ours), "unit": pair.unit, "peak_mb": max(peaks)}
    if pair.precision and counter.get_total_flops() > 0:
        row["of_peak"] = counter.get_total_flops() / median(ours) / machine_peak(device, pair.precision)
    return row


def largest_difference(found: Results, expected: Results) -> float:
    """Relative to the largest expected value of each quantity."""
    largest = 0.0
    for quantity in zip(found, expected, strict=True):
        values = [(a.double(), b.double()) for a, b in zip(*quantity, strict=True)]
        scale = max(float(b.abs().max()) for _, b in values) or 1
        largest = max(largest, *(float((a - b).abs().max()) / scale for a, b in values))
    return largest


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # of Linux: peak resident size becomes the present one


def peak_memory(device: torch.device) -> int:
    """In megabytes: what PyTorch has allocated on a GPU, or the resident size of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6)


def use_tf32(allowed: bool) -> None:
    """Whether GPUs may round the inputs of float32 products and convolutions to TF32 from now on."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@cache
def machine_peak(device: torch.device, precision: str) -> float:
    """Operations per second of the fastest of five products of two large matrices."""
    side = 16384 if device.type == "cuda" else 1024  # larger ones take minutes where bf16 is emulated
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    use_tf32(precision == "tf32")
    seconds = []
    for _ in range(5):
        synchronise(device)
        start = time.perf_counter()
        matrix @ matrix
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)
