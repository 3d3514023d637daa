"""A pass over all photos: shared out, resumed where it was interrupted, not stopped by a ref that cannot be done."""

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.artifacts import read_images, read_map
from dataset.photos import read_photo
from IRNet.processes import map_in_workers
from utils.distributed import gather, own_share, usable_cores
from utils.errors import UserError, WriteError, one_line
from utils.log import say

PHOTOS_PER_WORKER = 8  # fewer are done before a further process has started


class PhotoRefs(NamedTuple):
    """A photo and the refs in it."""

    path: Path
    names: list[str]


class Refused(NamedTuple):
    """A ref that cannot be done, and why."""

    name: str
    reason: str

    def tell(self, title: str) -> None:
        """Name it on standard error, beside a progress bar; `title` says in which pass."""
        tqdm.write(f"{title}: {self.name} refused: {self.reason}", file=sys.stderr)


Outcome = Literal["made", "empty"] | Refused  # what became of a ref; `empty`: made, but with nothing in it


class PhotoWork(ABC):
    """What a pass does: one file per ref; what depends on the photo alone is done once for all its refs."""

    @abstractmethod
    def is_finished(self, name: str) -> bool:
        """Whether the ref's file is there; it is then whole."""

    @abstractmethod
    def prepare(self, photo: np.ndarray, device: torch.device) -> Any:
        """What the refs of a photo share. photo: uint8 (H, W, 3), RGB."""

    @abstractmethod
    def make(self, name: str, prepared: Any) -> bool:
        """Write the ref's file; False where it is empty. Raises UserError where that cannot be done."""


def photos_of(train_list: Path, image_root: Path) -> list[PhotoRefs]:
    """The photos of a list of names, in the order of their first ref."""
    names: dict[str, list[str]] = {}
    for name, photo in read_images(train_list).items():
        names.setdefault(photo, []).append(name)
    return [PhotoRefs(image_root / photo, refs) for photo, refs in names.items()]


def read_response(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """The ref's response map with negative values set to 0, float32 (H, W); UserError where it has another size."""
    response = read_map(folder, name)
    if response.shape != size:
        raise UserError(
            f"the response map of {name} is {response.shape[0]} x {response.shape[1]}, its photo "
            f"{size[0]} x {size[1]}; check --image_root, or export the map again"
        )
    return response.clip(min=0)


def run_pass(title: str, work: PhotoWork, photos: list[PhotoRefs], device: torch.device, workers: int) -> None:
    """Do `work` for every ref that is not finished; the main process says how it went. Returns when all are through.

    Raises UserError where every single ref was refused.
    """
    todo = [PhotoRefs(path, [n for n in names if not work.is_finished(n)]) for path, names in own_share(photos)]
    todo = [refs for refs in todo if refs.names]
    counts = Counter({"total": sum(len(refs.names) for refs in photos)})
    shown = tqdm(_outcomes(work, todo, device, workers), title, len(todo), unit="photo", disable=None)
    for outcome in (outcome for outcomes in shown for outcome in outcomes):
        if isinstance(outcome, Refused):
            outcome.tell(title)
        counts["refused" if isinstance(outcome, Refused) else outcome] += 1
    _summarise(title, gather(counts))


def _summarise(title: str, counts: list[Counter]) -> None:
    total, all_counts = counts[0]["total"], sum(counts, Counter())
    made, refused = all_counts["made"] + all_counts["empty"], all_counts["refused"]
    found = total - made - refused
    say(f"{title}: {made} made ({all_counts['empty']} of them empty), {found} already there, {refused} refused")
    if total and refused == total:
        raise UserError(f"{title}: all {total} refs were refused; the lines above say why")


def _outcomes(work: PhotoWork, todo: list[PhotoRefs], device: torch.device, workers: int) -> Iterator[list[Outcome]]:
    if device.type != "cpu":
        workers = 1
    workers = min(workers, usable_cores(), -(-len(todo) // PHOTOS_PER_WORKER))
    return map_in_workers(partial(_do_photo, work, device), todo, workers)


def _do_photo(work: PhotoWork, device: torch.device, refs: PhotoRefs) -> list[Outcome]:
    try:
        prepared = work.prepare(np.array(read_photo(refs.path)), device)
    except (UserError, MemoryError, RuntimeError) as error:
        return [Refused(name, _reason(error)) for name in refs.names]
    return [_do_ref(work, name, prepared) for name in refs.names]


def _do_ref(work: PhotoWork, name: str, prepared: Any) -> Outcome:
    try:
        return "made" if work.make(name, prepared) else "empty"
    except WriteError:
        raise  # of a full disk the other refs would say the same
    except (UserError, MemoryError, RuntimeError) as error:
        return Refused(name, _reason(error))


def _reason(error: Exception) -> str:
    """Why a ref is refused; raises the error where it is neither the user's nor want of memory."""
    if isinstance(error, UserError):
        return one_line(error)
    # On a CPU torch says so by a plain RuntimeError of its allocator.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "there is not enough memory for a photo of this size"
    raise error
