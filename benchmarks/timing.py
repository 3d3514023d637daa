"""Two ways to the same result, timed in turns in one run: seconds differ between machines more than ratios do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Results = Sequence[Sequence[torch.Tensor]]  # quantities, each of one or more tensors on a common scale


@dataclass(frozen=True)
class Setting:
    """The sizes of networks and inputs, and where they are computed."""

    folder: Path  # for files that a row needs
    device: torch.device
    batch_size: int  # of a training step
    backbone: str = "clip-RN50"
    scorer: str = "ViT-B/32"
    hidden_dim: int = 1024
    input_size: int = 320  # pixels
    photo_size: tuple[int, int] = (480, 640)  # height, width
    walk_size: tuple[int, int] = (80, 100)
    masked_photo_size: tuple[int, int] = (240, 320)  # of a pseudo mask: on 480 x 640 the dense walk takes 20 minutes


@dataclass(frozen=True)
class Pair:
    """Ours and the straightforward way. Each call returns the results of the same work on the same inputs."""

    ours: Callable[[], Results]
    straightforward: Callable[[], Results]
    repeats: int = 5  # of the straightforward way; if 1, its only run is also the timed one
    ours_per_repeat: int = 1


def compare(pair: Pair, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """A row of the table: median seconds, their ratio with the range of the ratios of neighbours, `max_difference`.

    That is the largest difference of the first results, relative to the largest value of their quantity.
    """
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def timed(work: Callable[[], Results]) -> tuple[float, Results]:
        wait()
        start = clock()
        results = work()
        wait()
        return clock() - start, results

    found = pair.ours()
    first, expected = timed(pair.straightforward)
    difference = 0.0
    for quantity in zip(found, expected, strict=True):
        values = [(a.double(), b.double()) for a, b in zip(*quantity, strict=True)]
        scale = max(float(b.abs().max()) for _, b in values) or 1
        difference = max(difference, *(float((a - b).abs().max()) / scale for a, b in values))
    del found, expected, quantity, values  # gradients, which are as large as the networks
    ours, theirs, ratios = [], [], []
    for _ in range(pair.repeats):
        theirs.append(first if pair.repeats == 1 else timed(pair.straightforward)[0])
        beside = [timed(pair.ours)[0] for _ in range(pair.ours_per_repeat)]
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
