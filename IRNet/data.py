"""What IRNet is trained on: photos and their IR labels, augmented; refs that cannot be read are named and left out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.artifacts import read_label
from dataset.photos import read_photo
from IRNet.images import augment, normalise, place
from IRNet.network import STRIDE
from IRNet.passes import Refused
from utils.errors import UserError
from utils.log import say


class TrainingItem(NamedTuple):
    """A ref with an IR label."""

    name: str
    photo: Path


class TrainingSet(Dataset):
    """Augmented crops of one epoch; what is drawn depends on seed, epoch and name alone."""

    def __init__(self, items: list[TrainingItem], label_dir: Path, crop_size: int, seed: int, epoch: int):
        self.items, self.label_dir, self.crop_size, self.draw = items, label_dir, crop_size, f"{seed}/{epoch}"

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | Refused:
        """A photo, float32 (3, S, S), and its label at stride 4, uint8 (S / 4, S / 4)."""
        name, path = self.items[index]
        try:
            photo, label = np.asarray(read_photo(path)), read_label(self.label_dir, name)
            if label.shape != photo.shape[:2]:
                raise UserError(f"the IR label of {name} has another size than its photo {path}; make it again")
        except UserError as error:
            return Refused(name, str(error))
        photo, label = augment(photo, label, self.crop_size, Random(f"{self.draw}/{name}"))
        # Kept quirk: this takes the pixel at (4 i + 2, 4 j + 2), while the network's features sit near 4 i.
        reduced = np.ascontiguousarray(label[2::STRIDE, 2::STRIDE])
        return torch.from_numpy(photo).permute(2, 0, 1), torch.from_numpy(reduced)


class PlainSet(Dataset):
    """The photos' top left crops, padded with 0, float32 (3, S, S)."""

    def __init__(self, items: list[TrainingItem], crop_size: int):
        self.items, self.crop_size = items, crop_size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor] | Refused:
        try:
            photo = normalise(np.asarray(read_photo(self.items[index].photo)))
        except UserError as error:
            return Refused(self.items[index].name, str(error))
        return (torch.from_numpy(place(photo, self.crop_size, 0, 0, 0)).permute(2, 0, 1),)


class Batch(NamedTuple):
    """Samples that could be read, and refs that could not."""

    tensors: list[torch.Tensor]  # each sample's parts, stacked; none where every sample was refused
    refused: list[Refused]


def collate(samples: list[tuple | Refused]) -> Batch:
    """Stack the samples that could be read."""
    refused = [sample for sample in samples if isinstance(sample, Refused)]
    good = [sample for sample in samples if not isinstance(sample, Refused)]
    return Batch([torch.stack(parts) for parts in zip(*good, strict=True)], refused)


def list_refused(batches: Iterable[Batch]) -> Iterator[list[torch.Tensor]]:
    """The batches' tensors; refs that could not be read are named, and counted at the end."""
    count = 0
    for tensors, refused in batches:
        for ref in refused:
            ref.tell("train_irn")
        count += len(refused)
        if tensors:
            yield tensors
    if count:
        say(f"train_irn: {count} refused")
