"""What the three passes read: the photos of a list of refs, and the crops that pass 2 trains on."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from dataset.artifacts import UNKNOWN, map_path, read_images, read_label
from dataset.passes import PhotoRefs, fitted
from dataset.photos import MEAN, STD, at_size, read_photo
from IRNet.network import STRIDE
from utils.errors import UserError
from utils.resume import fingerprint

NORMALISED = ((np.arange(256)[:, None] / 255.0 - MEAN) / STD).astype(np.float32)  # (256, 3), computed in float64


class Run(NamedTuple):
    """What the passes of one run share."""

    work_space: Path  # the folder of stamps, checkpoint and report
    resume: bool  # keep what an interrupted run made
    device: torch.device
    workers: int  # processes, or with a GPU threads


def photos_of(train_list: Path, image_root: Path) -> list[PhotoRefs]:
    """The photos of a list of names, in the order of their first ref; UserError if none of them exists."""
    photos = by_photo((name, image_root / photo) for name, photo in read_images(train_list).items())
    if not any(path.is_file() for path, _ in photos):
        raise UserError(f"{image_root} holds no photo of {train_list}; check --image_root")
    return photos


def by_photo(items: Iterable[tuple[str, Path]]) -> list[PhotoRefs]:
    """The photos of refs, whose names and photos are given, in the order of their first ref."""
    names: dict[Path, list[str]] = {}
    for name, path in items:
        names.setdefault(path, []).append(name)
    return list(names.items())


def map_fingerprint(photos: list[PhotoRefs], map_dir: Path) -> str:
    """The fingerprint of the refs' response maps; UserError if there is none."""
    maps = [map_path(map_dir, name) for _, names in photos for name in names]
    if not any(file.is_file() for file in maps):
        hint = "check --cam_out_dir, or write them with validate.py --prms --cam_save_dir ..."
        raise UserError(f"{map_dir} holds no response map of --train_list; {hint}")
    return fingerprint(maps)


class Crops(Dataset):
    """What IRNet is trained on: augmented crops that depend on nothing but seed, epoch and name.

    items: name and photo of every ref.
    """

    def __init__(self, items: list[tuple[str, Path]], label_dir: Path, size: int, seed: int, epoch: int):
        self.items, self.label_dir, self.size, self.seed, self.epoch = items, label_dir, size, seed, epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A photo, float32 (3, S, S), and its label at stride 4, uint8 (S / 4, S / 4); UserError if they do not fit."""
        name, path = self.items[index]
        photo, label = read_labelled(path, self.label_dir, name)
        crop, label = augment(photo, label, self.size, Random(f"{self.seed}/{self.epoch}/{name}"))
        # Kept quirk: this takes the pixel at (4 i + 2, 4 j + 2), while the network's features sit near 4 i.
        reduced = np.ascontiguousarray(label[2::STRIDE, 2::STRIDE])
        return torch.from_numpy(crop).permute(2, 0, 1), torch.from_numpy(reduced)


class Corners(Dataset):
    """What the mean displacement is measured on: the top left corner of each photo, and how many refs it has."""

    def __init__(self, items: list[tuple[str, Path]], label_dir: Path, size: int):
        self.label_dir, self.size = label_dir, size
        self.photos = by_photo(items)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """The corner, float32 (3, S, S), and the number of refs."""
        path, names = self.photos[index]
        photo, _ = read_labelled(path, self.label_dir, names[0])
        return torch.from_numpy(place(normalise(photo), self.size, 0, 0, 0)).permute(2, 0, 1), len(names)


def read_labelled(path: Path, label_dir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A photo, uint8 (h, w, 3), and the IR label of one of its refs, uint8 (h, w); UserError if they do not fit."""
    label = read_label(label_dir, name)
    photo = fitted(read_photo(path), label.shape)
    return photo, at_size(label, photo.shape[:2])


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
    return at_size(image, (height, width), resample)


def random_offset(side: int, size: int, rng: Random) -> int:
    """Where an image's side begins in a crop of `size`: negative if it is cut, positive if it is padded."""
    return -rng.randrange(side - size + 1) if side > size else rng.randrange(size - side + 1)


def place(image: np.ndarray, size: int, top: int, left: int, fill: int) -> np.ndarray:
    """The size x size crop that has the image's corner at (top, left), and `fill` outside the image."""
    crop = np.full((size, size, *image.shape[2:]), fill, dtype=image.dtype)
    visible = image[max(0, -top) : size - top, max(0, -left) : size - left]
    crop[max(0, top) :, max(0, left) :][: visible.shape[0], : visible.shape[1]] = visible
    return crop
