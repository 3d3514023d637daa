"""Photos and their refs, as the three passes read them.

Passes 1 and 3 make a file per ref with `make_missing`: a ref whose files cannot be used is refused by name, and the
others are done. Pass 2 trains on `Crops` of the refs that have an IR label.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset.artifacts import UNKNOWN, map_path, read_images, read_label, read_map
from dataset.photos import MEAN, STD, read_photo
from IRNet.network import STRIDE
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


def map_files(folder: Path, names: list[str]) -> list[Path]:
    """The response maps of these refs; UserError if none of them exists."""
    files = [map_path(folder, name) for name in names]
    if not any(file.is_file() for file in files):
        hint = "check --cam_out_dir, or write them with validate.py --prms --cam_save_dir ..."
        raise UserError(f"{folder} holds no response map of --train_list; {hint}")
    return files


def read_response(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray:
    """A ref's response map, negative values set to 0, float32 (H, W); UserError unless it has its photo's `size`."""
    response = read_map(folder, name)
    if response.shape != size:
        raise UserError(
            f"the response map of {name} is {response.shape[0]} x {response.shape[1]}, its photo "
            f"{size[0]} x {size[1]}; check --image_root, or export the map again"
        )
    return response.clip(min=0)


def make_missing(title: str, work: Any, folder: Path, workers: int) -> None:
    """Make `<folder>/<name>.png` for every ref that has none, and log how many were made, kept and refused.

    work: a data class and Dataset with `photos` and `device`; reading one of its photos makes the files of the photo's
    refs and returns what became of each by name: "made", "empty" (made, with nothing in it) or the error that it was
    refused for. On a CPU, up to `workers` processes read. Raises WriteError (on a full disk all others would fail too),
    and UserError if all refs were refused.
    """
    left = [(path, [n for n in names if not (folder / f"{n}.png").is_file()]) for path, names in shard(work.photos)]
    own = replace(work, photos=[(path, names) for path, names in left if names])
    if work.device.type == "cpu":
        workers = min(workers, usable_cores(), len(own))
        torch.set_num_threads(1)  # as in every worker: a convolution's last bits depend on the number of threads
    else:
        workers = 0
    counts: Counter = Counter()
    loader = DataLoader(own, batch_size=None, num_workers=workers)
    for outcomes in tqdm(loader, title, unit="photo", disable=None if is_main() else True):
        for name, outcome in outcomes.items():
            if isinstance(outcome, WriteError):
                raise outcome
            if isinstance(outcome, Exception):
                tqdm.write(f"{title}: {name} refused: {one_line(outcome)}", file=sys.stderr)
            counts["refused" if isinstance(outcome, Exception) else outcome] += 1
    counts = sum(all_gather(counts), Counter())
    made, refused, total = counts["made"] + counts["empty"], counts["refused"], sum(len(n) for _, n in work.photos)
    log(f"{title}: {made} made ({counts['empty']} empty), {total - made - refused} kept, {refused} refused")
    if refused == total:
        raise UserError(f"{title}: all {total} refs were refused; the lines above say why")


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
