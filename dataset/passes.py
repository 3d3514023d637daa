"""Passes over photos: the refs of a photo are worked on together, several photos at a time, and refused by name.

A pass that makes files from photos and response maps is a `make` function and a call of `make_files`.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.artifacts import read_map
from dataset.photos import at_size, read_photo, same_aspect
from utils.distributed import all_gather, is_main, shard, usable_cores
from utils.errors import UserError, WriteError, one_line
from utils.log import log
from utils.memory import lacks_memory, return_freed_memory

PhotoRefs = tuple[Path, list[str]]  # a photo and the names of the refs in it
Outcome = bool | str | UserError  # what became of a ref; False: nothing was found
Outcomes = Iterable[tuple[str, Outcome]]  # with a ref's name
Work = Callable[[Path, list[str]], Outcomes]
Make = Callable[[np.ndarray, dict[str, np.ndarray], tuple[int, int]], Outcomes]
LARGE = 200_000  # pixels; for smaller photos giving memory back takes a fifth of the time, and saves little
LONGEST = 1000  # pixels: photos with a longer side are worked on at this size, whatever memory they would take


def make_files(
    title: str,
    photos: list[PhotoRefs],
    map_dir: Path,
    make: Make,
    last_file: Callable[[str], Path],
    device: torch.device,
    workers: int,
) -> list[Outcome]:
    """Make the files of every ref that lacks its `last_file`; log how many were made, kept and refused.

    `make` gets a photo, uint8 (h, w, 3), the response maps of its refs by name, float32 (h, w), at least 0, and the
    size (H, W) of these maps as they are stored, h x w being at most `LONGEST`. It writes each ref's files at H x W and
    then yields the ref's name and its outcome; all outcomes are returned. Raises as `map_photos`; UserError if all were
    refused.
    """
    left = [(path, [name for name in names if not last_file(name).is_file()]) for path, names in shard(photos)]
    left = [(path, names) for path, names in left if names]
    outcomes = list(map_photos(title, left, partial(_with_maps, make, map_dir), device, workers).values())
    total = sum(len(names) for _, names in photos)
    refused = sum(isinstance(outcome, UserError) for outcome in outcomes)
    made, kept = len(outcomes) - refused, total - len(outcomes)
    log(f"{title}: {made} made ({outcomes.count(False)} empty), {kept} kept, {refused} refused")
    if refused == total:
        raise UserError(f"{title}: all {refused} refs were refused; the lines above say why")
    return outcomes


def map_photos(
    title: str, photos: list[PhotoRefs], work: Work, device: torch.device, workers: int
) -> dict[str, Outcome]:
    """What `work` yields about the refs of `photos`, this process's part; returns that of all processes, by name.

    Refs that `work` has said nothing about when it raises a UserError, or lacks memory, are refused with that error.
    Photos are shared out to `workers`, which on a CPU are processes and with a GPU threads, because reading, decoding
    and writing let others compute. Raises WriteError: on a full disk all others would fail too.
    """
    outcomes: dict[str, Outcome] = {}
    with closing(_results(partial(_outcomes, work), photos, device, workers)) as results:
        for found in tqdm(results, title, len(photos), unit="photo", disable=None if is_main() else True):
            for name, outcome in found.items():
                if isinstance(outcome, WriteError):
                    raise outcome
                if isinstance(outcome, UserError):
                    tqdm.write(f"{title}: {name} refused: {one_line(outcome)}", file=sys.stderr)
            outcomes |= found
    return {name: outcome for part in all_gather(outcomes) for name, outcome in part.items()}


def _results(job: Callable[[PhotoRefs], dict], photos: list[PhotoRefs], device: torch.device, workers: int) -> Iterator:
    if device.type == "cpu":
        before, workers = torch.get_num_threads(), min(workers, usable_cores(), len(photos))
        torch.set_num_threads(1)  # as in every worker: a convolution's last bits depend on the number of threads
        try:
            yield from DataLoader(photos, batch_size=None, collate_fn=job, num_workers=workers)
        finally:
            torch.set_num_threads(before)
    else:
        with ThreadPool(max(1, workers)) as threads:
            yield from threads.imap(job, photos)


def _outcomes(work: Work, photo: PhotoRefs) -> dict[str, Outcome]:
    """What `work` yields about the refs of one photo, each refused that it does not get to."""
    path, names = photo
    outcomes: dict[str, Outcome] = {}
    try:
        outcomes.update(work(path, names))
    except UserError as error:
        outcomes |= {name: error for name in names if name not in outcomes}
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        refusal = UserError(f"{path} takes more memory than there is; give fewer --num_workers, or make it smaller")
        outcomes |= {name: refusal for name in names if name not in outcomes}
    return outcomes


def _with_maps(make: Make, map_dir: Path, path: Path, names: list[str]) -> Outcomes:
    """Call `make` with the photo and the response maps of its refs, once for every size that these have."""
    photo = read_photo(path)
    by_size: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for name in names:
        try:
            response = read_map(map_dir, name).clip(min=0)
            small = at_size(response, working_size(response.shape), Image.Resampling.BILINEAR)
            by_size.setdefault(response.shape, {})[name] = small
        except UserError as error:
            yield name, error
    for size, responses in by_size.items():
        if math.prod(working_size(size)) > LARGE:
            return_freed_memory()  # its pieces have the sizes of the last photo's tensors
        try:
            pixels = fitted(photo, size)
        except UserError as error:
            yield from dict.fromkeys(responses, error).items()
        else:
            yield from make(pixels, responses, size)


def fitted(photo: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The photo at the `working_size` of its maps, uint8 (h, w, 3).

    size: (H, W) of the maps. UserError unless the photo has their aspect ratio: then it is turned, or another one.
    """
    if not same_aspect((photo.height, photo.width), size):
        sizes = f"{size[0]} x {size[1]}, its photo {photo.height} x {photo.width}"
        raise UserError(f"its map is {sizes}; check --image_root, or make the map again")
    return at_size(np.array(photo), working_size(size), Image.Resampling.BILINEAR)


def working_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` (H, W), or smaller by the factor that makes the longer side `LONGEST`."""
    scale = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
