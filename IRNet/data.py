"""Photos and their refs, as the three passes read them.

Passes 1 and 3 are a `FilePass` each: a ref whose files cannot be used is refused by name, and the others are done.
Pass 2 trains on `Crops` of the refs that have an IR label.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset.artifacts import UNKNOWN, map_path, read_images, read_label, read_map
from dataset.photos import MEAN, STD, read_photo
from IRNet.network import STRIDE
from IRNet.resume import fingerprint, start_pass
from utils.distributed import all_gather, is_main, shard, usable_cores
from utils.errors import UserError, WriteError, one_line
from utils.log import log

PhotoRefs = tuple[Path, list[str]]  # a photo and the names of the refs in it
REFUSALS = (UserError, torch.OutOfMemoryError)  # what only the ref suffers from
NORMALISED = ((np.arange(256)[:, None] / 255.0 - MEAN) / STD).astype(np.float32)  # (256, 3), computed in float64


def photos_of(train_list: Path, image_root: Path) -> list[PhotoRefs]:
    """The photos of a list of names, in the order of their first ref; UserError if none of them exists."""
    names: dict[str, list[str]] = {}
    for name, photo in read_images(train_list).items():
        names.setdefault(photo, []).append(name)
    if not any((image_root / photo).is_file() for photo in names):
        raise UserError(f"{image_root} holds no photo of {train_list}; check --image_root")
    return [(image_root / photo, refs) for photo, refs in names.items()]


def read_response(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """A ref's response map, negative values set to 0, float32 (H, W); UserError unless it has its photo's `size`."""
    response = read_map(folder, name)
    if response.shape != size:
        sizes = f"{response.shape[0]} x {response.shape[1]}, its photo {size[0]} x {size[1]}"
        raise UserError(f"the response map of {name} is {sizes}; check --image_root, or export the map again")
    return response.clip(min=0)


@dataclass
class FilePass(Dataset):
    """Pass 1 or 3: makes files for every ref. A subclass adds the settings as fields and defines how files are made.

    It is a data set so that a loader's processes share the work: reading an item makes the files of a photo's refs.
    """

    photos: list[PhotoRefs]
    map_dir: Path
    folder: Path  # of the files that are made
    device: torch.device

    title: ClassVar[str]
    paths: ClassVar[tuple[Callable[[Path, str], Path], ...]]  # of a ref's files; the first is written last

    def settings(self) -> dict[str, Any]:
        """What the files depend on besides photos and response maps, under the names of the flags."""
        raise NotImplementedError

    def prepare(self, photo: np.ndarray) -> Any:
        """What the refs of a photo, uint8 (H, W, 3), share."""
        raise NotImplementedError

    def make(self, shared: Any, response: torch.Tensor, name: str) -> bool:
        """Write a ref's files; returns whether anything was found. response: float32 (H, W), at least 0."""
        raise NotImplementedError

    def __getitem__(self, refs: PhotoRefs) -> dict[str, str | Exception]:
        """Make the files of a photo's refs. Returns for each "made", "empty" (nothing found) or why it is refused."""
        path, names = refs
        try:
            photo = np.array(read_photo(path))
            shared = self.prepare(photo)
        except REFUSALS as error:
            return dict.fromkeys(names, error)
        outcomes: dict[str, str | Exception] = {}
        for name in names:
            try:
                response = torch.from_numpy(read_response(self.map_dir, name, photo.shape[:2]))
                outcomes[name] = "made" if self.make(shared, response.to(self.device), name) else "empty"
            except REFUSALS as error:
                outcomes[name] = error
        return outcomes

    def run(self, work_space: Path, resume: bool, workers: int) -> None:
        """Make the files of every ref or, to resume, of those that lack them; log how many were made and refused.

        On a CPU, up to `workers` processes make them. Raises WriteError (on a full disk all others would fail too), and
        UserError if all refs were refused.
        """
        names = [name for _, refs in self.photos for name in refs]
        maps = [map_path(self.map_dir, name) for name in names]
        if not any(file.is_file() for file in maps):
            hint = "check --cam_out_dir, or write them with validate.py --prms --cam_save_dir ..."
            raise UserError(f"{self.map_dir} holds no response map of --train_list; {hint}")
        made_from = self.settings() | {"response maps": fingerprint(maps)}
        old = [path(self.folder, name) for name in names for path in self.paths]
        start_pass(work_space / f"{self.title}.json", made_from, old, resume)
        last = self.paths[0]  # where it is there, the ref is finished
        left = [(path, [n for n in refs if not last(self.folder, n).is_file()]) for path, refs in shard(self.photos)]
        left = [(path, refs) for path, refs in left if refs]
        if self.device.type == "cpu":
            workers = min(workers, usable_cores(), len(left))
            torch.set_num_threads(1)  # as in every worker: a convolution's last bits depend on the number of threads
        else:
            workers = 0
        counts: Counter = Counter()
        loader = DataLoader(self, sampler=left, batch_size=None, num_workers=workers)
        for outcomes in tqdm(loader, self.title, unit="photo", disable=None if is_main() else True):
            for name, outcome in outcomes.items():
                if isinstance(outcome, WriteError):
                    raise outcome
                if isinstance(outcome, Exception):
                    tqdm.write(f"{self.title}: {name} refused: {one_line(outcome)}", file=sys.stderr)
                counts["refused" if isinstance(outcome, Exception) else outcome] += 1
        counts = sum(all_gather(counts), Counter())
        kept, refused = len(names) - counts.total(), counts["refused"]
        made = counts["made"] + counts["empty"]
        log(f"{self.title}: {made} made ({counts['empty']} empty), {kept} kept, {refused} refused")
        if refused == len(names):
            raise UserError(f"{self.title}: all {refused} refs were refused; the lines above say why")


class Crops(Dataset):
    """What IRNet is trained on: augmented crops that depend on nothing but seed, epoch and name.

    items: name and photo of every ref. epoch: None for the photos' top left corners, with unknown labels.
    """

    def __init__(self, items: list[tuple[str, Path]], label_dir: Path, size: int, seed: int, epoch: int | None):
        self.items, self.label_dir, self.size, self.seed, self.epoch = items, label_dir, size, seed, epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A photo, float32 (3, S, S), and its label at stride 4, uint8 (S / 4, S / 4); UserError if they do not fit."""
        name, path = self.items[index]
        photo = np.asarray(read_photo(path))
        if self.epoch is None:
            crop = place(normalise(photo), self.size, 0, 0, 0)
            label = np.full((self.size, self.size), UNKNOWN, dtype=np.uint8)
        else:
            label = read_label(self.label_dir, name)
            if label.shape != photo.shape[:2]:
                raise UserError(f"the IR label of {name} has another size than its photo {path}; make it again")
            crop, label = augment(photo, label, self.size, Random(f"{self.seed}/{self.epoch}/{name}"))
        # Kept quirk: this takes the pixel at (4 i + 2, 4 j + 2), while the network's features sit near 4 i.
        reduced = np.ascontiguousarray(label[2::STRIDE, 2::STRIDE])
        return torch.from_numpy(crop).permute(2, 0, 1), torch.from_numpy(reduced)


def normalise(photo: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (H, W, 3) with ImageNet's statistics."""
    return NORMALISED[photo, np.arange(3)]


def augment(photo: np.ndarray, label: np.ndarray, size: int, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Random scale in 0.5..1.5, mirroring and crop, as `imutils` in the published code.

    photo: uint8 (H, W, 3). label: uint8 (H, W). Returns the photo as float32 (size, size, 3), normalised and padded
    with 0, and the label as uint8 (size, size), padded with `UNKNOWN`.
    """
    scale = 0.5 + rng.random()
    photo = normalise(rescale(photo, scale, Image.Resampling.BICUBIC))
    label = rescale(label, scale, Image.Resampling.NEAREST)
    if rng.getrandbits(1):
        photo, label = photo[:, ::-1], label[:, ::-1]
    height, width = label.shape
    left = random_offset(width, size, rng)  # drawn before the other, as published
    top = random_offset(height, size, rng)
    # Kept quirk: the photo is padded after its normalisation, so with the mean colour.
    return place(photo, size, top, left, 0), place(label, size, top, left, UNKNOWN)


def rescale(image: np.ndarray, scale: float, resample: Image.Resampling) -> np.ndarray:
    """uint8 (H, W[, 3]) resized by `scale`; sides are rounded half to even."""
    height, width = (max(1, int(np.round(side * scale))) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def random_offset(side: int, size: int, rng: Random) -> int:
    """Where an image's side begins in a crop of `size`: negative if it is cut, positive if it is padded."""
    return -rng.randrange(side - size + 1) if side > size else rng.randrange(size - side + 1)


def place(image: np.ndarray, size: int, top: int, left: int, fill: int) -> np.ndarray:
    """The size x size crop that has the image's corner at (top, left), and `fill` outside the image."""
    crop = np.full((size, size, *image.shape[2:]), fill, dtype=image.dtype)
    visible = image[max(0, -top) : size - top, max(0, -left) : size - left]
    crop[max(0, top) :, max(0, left) :][: visible.shape[0], : visible.shape[1]] = visible
    return crop
