"""CPU seconds and peak memory of IRNet's parts on one thread, beside the straightforward way of computing them.

    python -m benchmarks.bench_irnet [--only crf walk pseudo_mask] [--json FILE]

Each side of a row runs in a process of its own, so that its peak memory is its own. Dense walks run on small maps:
on the 120 x 160 of a 480 x 640 photo one would take 20 minutes and 6 GB. `walk_80x100` (minutes) runs only by name.
"""

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import multiprocessing

from benchmarks import naive_irnet
from IRNet.crf import DenseCRF
from IRNet.instances import cluster, find_centroids, strongest
from IRNet.make_ins_seg import PhotoStructure, pseudo_scores
from IRNet.walk import random_walk
from utils.files import write_json
from utils.options import Parser


class Side(NamedTuple):
    """One side's measurement. memory: peak in MB above what was there when it began."""

    seconds: list[float]
    memory: float
    result: np.ndarray


def crf_inputs() -> tuple[torch.Tensor, ...]:
    """A photo of 480 x 640, smooth parts and noise, and the two label maps of a response map of two blobs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640] / 480
    response = response_map(480, 640)
    photo = 120 + 90 * np.sin(5 * (y + x))[..., None] * [1, 0.5, -1] + 60 * (response.numpy() > 0.5)[..., None]
    photo = (photo + rng.normal(0, 8, photo.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(photo), torch.stack([response > 0.3, response > 0.1], dim=-1)


def response_map(height: int, width: int) -> torch.Tensor:
    y, x = np.mgrid[:height, :width] / height
    blobs = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.03) for a, b in ((0.4, 0.4), (0.6, 0.9)))
    return torch.from_numpy(blobs / blobs.max()).float()


def mask_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Response of height x width, edges and the displacements of two instances at a quarter of that."""
    small = (height // 4, width // 4)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: small[0], : small[1]].astype(np.float32)
    centre = np.where(x < small[1] / 2, small[1] / 4, 3 * small[1] / 4)
    displacement = np.stack([small[0] / 2 - y, centre - x]) * 0.3 + rng.normal(0, 0.05, (2, *small))
    edge = np.exp(-np.abs(x - small[1] / 2)) + rng.uniform(0, 0.2, small)
    edge = torch.from_numpy(edge.clip(0, 1)).float()
    return response_map(height, width), edge, torch.from_numpy(displacement).float()


def walk_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """One instance's scores and the edges of a map of height x width."""
    response, edge, _ = mask_inputs(4 * height, 4 * width)
    return response[None, ::4, ::4], edge


def our_crf(photo: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return DenseCRF(photo)(labels)


def our_pseudo_mask(response: torch.Tensor, edge: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    instances = torch.from_numpy(cluster(displacement, find_centroids(displacement)))
    scores = pseudo_scores(response, PhotoStructure(edge, instances, tuple(response.shape)), 10, 8)
    return strongest(scores, 0.25).any(dim=0)


def our_centroids(_: torch.Tensor, __: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    return find_centroids(displacement)


def naive_centroids(_: torch.Tensor, __: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(naive_irnet.centroids_step_by_step(displacement.numpy()))


class Row(NamedTuple):
    """What is compared. naive_runs: 0 where that side would take too long; else how often it is timed."""

    inputs: Callable[..., tuple[torch.Tensor, ...]]
    size: tuple[int, ...]
    ours: Callable[..., torch.Tensor]
    naive: Callable[..., torch.Tensor]
    naive_runs: int


ROWS = {
    "crf": Row(crf_inputs, (), our_crf, naive_irnet.crf_per_label, 3),
    "centroids": Row(mask_inputs, (480, 640), our_centroids, naive_centroids, 3),
    "walk": Row(walk_inputs, (60, 80), random_walk, naive_irnet.dense_walk, 1),
    "pseudo_mask": Row(mask_inputs, (240, 320), our_pseudo_mask, naive_irnet.pseudo_mask, 1),
    "walk_120x160": Row(walk_inputs, (120, 160), random_walk, naive_irnet.dense_walk, 0),
    "pseudo_mask_480x640": Row(mask_inputs, (480, 640), our_pseudo_mask, naive_irnet.pseudo_mask, 0),
    "walk_80x100": Row(walk_inputs, (80, 100), random_walk, naive_irnet.dense_walk, 1),
}
BY_NAME_ONLY = ("walk_80x100",)
OUR_RUNS = 5


def measure(name: str, ours: bool) -> Side:
    """Time one side of a row in this process, once unmeasured before where it is timed more than once."""
    torch.set_num_threads(1)
    row = ROWS[name]
    function, runs = (row.ours, OUR_RUNS) if ours else (row.naive, row.naive_runs)
    inputs = row.inputs(*row.size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(runs + (runs > 1)):
        start = time.process_time()
        result = function(*inputs)
        seconds.append(time.process_time() - start)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Side(seconds[-runs:], memory, result.numpy())


def compare(name: str) -> dict[str, float | None]:
    """A row of the table; the entries of `scripts/benchmark.sh`'s JSON and the peak memories."""
    ours = _in_own_process(name, True)
    row: dict[str, float | None] = {"ours_s": median(ours.seconds), "ours_mb": ours.memory}
    if not ROWS[name].naive_runs:
        return row
    naive = _in_own_process(name, False)
    ratios = [a / b for a in naive.seconds for b in ours.seconds]
    difference = np.abs(naive.result.astype(float) - ours.result.astype(float)).max()
    return row | {
        "straightforward_s": median(naive.seconds),
        "straightforward_mb": naive.memory,
        "ratio": median(naive.seconds) / median(ours.seconds),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "max_difference": float(difference),
    }


def _in_own_process(name: str, ours: bool) -> Side:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, name, ours).result()


def main() -> None:
    parser = Parser("IRNet's parts beside the straightforward way", "python -m benchmarks.bench_irnet --only crf walk")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="these rows")
    parser.add_argument("--json", help="write the table here as well")
    args = parser.parse_args()
    columns = ("ours_s", "straightforward_s", "ratio", "ours_mb", "straightforward_mb", "max_difference")
    print(f"{'part':20s}", *(f"{column:>18s}" for column in columns))
    table = {}
    for name in args.only or [name for name in ROWS if name not in BY_NAME_ONLY]:
        table[name] = row = compare(name)
        print(f"{name:20s}", *(f"{row[c]:18.4g}" if c in row else f"{'-':>18s}" for c in columns), flush=True)
    if args.json:
        write_json(args.json, table, indent=1)


if __name__ == "__main__":
    main()
