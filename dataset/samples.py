"""Samples for training and evaluation, the same for every data set and both stages."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from clip.tokens import tokenize
from dataset.artifacts import png_path, read_mask
from dataset.masks import rasterise
from dataset.photos import read_photo, resized, to_input
from dataset.references import Reference, Split
from utils.distributed import rank, shard, world_size
from utils.errors import UserError, reason
from utils.log import log


class TrainSamples(Dataset):
    """One sentence of each ref, drawn anew in each epoch; absent refs are left out.

    Item i:
        image: float32 (3, S, S), normalised
        tokens: int64 (T,)
        ids: indices in `self.sentences`: `sentence`, its own, and `negatives`, of k others, int64 (k,)
        mask: with a folder of `pseudo_masks` the ref's, float32 (1, S, S) of 0 and 1, resized to the nearest pixel
        ref_id: text, for messages

    The draw depends on (seed, epoch, i) alone, not on the worker or on earlier draws, so that training can be resumed.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        query_length: int,
        seed: int,
        negatives: int = 0,
        pseudo_masks: str | Path | None = None,
    ):
        self.split, self.references = split, split.present().references
        self.size, self.query_length, self.seed, self.epoch = size, query_length, seed, 0
        self.negatives, self.pseudo_masks = negatives, pseudo_masks
        self.sentences = [text for reference in self.references for text in reference.sentences]
        self.first_sentence = list(accumulate((len(r.sentences) for r in self.references), initial=0))
        self.refs_of_photo: dict[int | str, list[int]] = {}
        for index, reference in enumerate(self.references):
            self.refs_of_photo.setdefault(reference.image_id, []).append(index)
        if negatives and len(set(self.sentences)) < 2:
            raise UserError(f"split '{split.name}' has only one distinct sentence; negatives need at least two")

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: int) -> dict[str, Any]:
        reference = self.references[index]
        random = np.random.default_rng([self.seed, self.epoch, index])
        drawn = int(random.integers(len(reference.sentences)))
        negatives = [self._draw_negative(index, reference.sentences[drawn], random) for _ in range(self.negatives)]
        sample: dict[str, Any] = {
            "image": to_input(resized(read_photo(self.split.photo_path(reference)), self.size)),
            "tokens": tokenize([reference.sentences[drawn]], self.query_length)[0],
            # Tensors, which are collated in shared memory: where that is full a worker says so, see `joined`.
            "ids": {
                "sentence": torch.tensor(self.first_sentence[index] + drawn),
                "negatives": torch.tensor(negatives).long(),
            },
            "ref_id": str(reference.ref_id),
        }
        if self.pseudo_masks is not None:
            mask = torch.from_numpy(read_mask(self.pseudo_masks, reference.name, reference.size).astype(np.float32))
            sample["mask"] = F.interpolate(mask[None, None], (self.size, self.size), mode="nearest")[0]
        return sample

    def other_refs(self, index: int) -> list[int]:
        """The other refs of the same photo in this split."""
        return [other for other in self.refs_of_photo[self.references[index].image_id] if other != index]

    def _draw_negative(self, index: int, positive: str, random: np.random.Generator) -> int:
        """The index of a sentence of another ref of the photo; without one, of any sentence with another text."""
        others = self.other_refs(index)
        # Kept: where the photo has no other ref, the ref's own other sentences can be drawn, too.
        pool = others or range(len(self.references))
        while True:
            negative = pool[int(random.integers(len(pool)))]
            sentence = int(random.integers(len(self.references[negative].sentences)))
            if others or self.references[negative].sentences[sentence] != positive:
                return self.first_sentence[negative] + sentence


def with_pseudo_masks(split: Split, folder: str | Path, skip_missing: bool) -> Split:
    """The refs of a split that have a pseudo mask, which are counted in a line; UserError where none has one.

    Those that have none are named in that line with `skip_missing`, else in a UserError. Absent refs are left out.
    """
    split = split.present()
    has_mask = {reference.name: png_path(folder, reference.name).is_file() for reference in split.references}
    missing = [name for name, there in has_mask.items() if not there]
    names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    if missing and (len(missing) == len(has_mask) or not skip_missing):
        hint = "make them with scripts/make_pseudo_masks.sh, or leave these refs out with --skip_missing"
        hint = "check --pseudo_path" if len(missing) == len(has_mask) else hint
        raise UserError(f"{len(missing)} of {len(has_mask)} refs have no pseudo mask in {folder} ({names}); {hint}")
    kept = f"{len(has_mask) - len(missing)} of {len(has_mask)} refs of {split.name}"
    log(f"pseudo masks: {kept}, in {folder}{f', not {names}' if missing else ''}")
    return split.part([reference for reference in split.references if has_mask[reference.name]])


def train_loader(samples: TrainSamples, batch_size: int, seed: int, workers: int) -> DataLoader:
    """Shuffled batches of this process's part, the last partial one included; reshuffled by `start_epoch`."""
    sampler = DistributedSampler(samples, num_replicas=world_size(), rank=rank(), seed=seed)
    return DataLoader(samples, batch_size, sampler=sampler, num_workers=workers, pin_memory=torch.cuda.is_available())


def smallest_batch(loader: DataLoader) -> int:
    """Refs in the smallest batch of an epoch, the last one of this process's share; all shares are equally large."""
    return len(loader.sampler) % loader.batch_size or loader.batch_size


def start_epoch(loader: DataLoader, epoch: int) -> None:
    """Order and draws of this epoch, counted from 0. Workers start anew with each epoch, so they know it."""
    loader.sampler.set_epoch(epoch)
    loader.dataset.epoch = epoch


@dataclass(frozen=True)
class Target:
    """A ref to evaluate, or only to segment: then it has no mask and no box."""

    reference: Reference
    path: Path  # of the photo
    mask: np.ndarray | None  # bool (H, W); of an absent ref empty
    box: tuple[float, float, float, float] | None  # x1, y1, x2, y2, in pixels; None: nothing to find, or not annotated
    size: tuple[int, int]  # (H, W) of the photo as annotated, else as it is: they can differ by a row
    fault: str | None = None  # why the photo cannot be read: its pixels are then black


@dataclass(frozen=True)
class EvalBatch:
    """Some photos with all their refs and all their sentences: B photos, R refs, N sentences."""

    images: torch.Tensor  # (B, 3, S, S) float32
    tokens: torch.Tensor  # (N, T) int64
    photo: torch.Tensor  # (N,) int64, the photo that each sentence is about
    target: torch.Tensor  # (N,) int64, the index in `targets` of the ref that each sentence names
    targets: list[Target]  # (R)

    def to(self, device: torch.device) -> "EvalBatch":
        return replace(self, **{n: getattr(self, n).to(device) for n in ("images", "tokens", "photo", "target")})


class EvalPhotos(Dataset):
    """The photos of a split, each once, with all its refs; with `masks` also their ground truth.

    faults: a photo that cannot be read becomes a `Target.fault` of its refs, instead of a UserError.
    """

    def __init__(self, split: Split, size: int, query_length: int, masks: bool = True, faults: bool = False):
        self.split, self.size, self.query_length = split, size, query_length
        self.masks, self.faults = masks, faults
        photos: dict[str, list[Reference]] = {}
        for reference in split.references:
            photos.setdefault(reference.photo, []).append(reference)
        self.photos = list(photos.values())
        without = next((r for r in split.present().references if r.segmentation is None or r.box is None), None)
        if masks and without:
            raise UserError(
                f"split '{split.name}' of {split.dataset} has no mask for ref {without.name}: it can be trained on and "
                "exported, but not evaluated; add masks, or leave it out of --test_split (--test_split none)"
            )

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> EvalBatch:
        references = self.photos[number]
        path = self.split.photo_path(references[0])
        photo, fault = self._read(path)
        sentences = [text for reference in references for text in reference.sentences]
        targets = []
        for reference in references:
            if self.masks:
                mask = ground_truth(self.split, reference, reference.size)
                targets.append(Target(reference, path, mask, reference.box, reference.size))
            else:
                size = reference.size or (photo.height, photo.width)
                targets.append(Target(reference, path, None, None, size, fault))
        return EvalBatch(
            images=to_input(resized(photo, self.size))[None],
            tokens=tokenize(sentences, self.query_length),
            photo=torch.zeros(len(sentences), dtype=torch.int64),
            target=torch.tensor([index for index, reference in enumerate(references) for _ in reference.sentences]),
            targets=targets,
        )

    def _read(self, path: Path) -> tuple[Image.Image, str | None]:
        if not self.faults:
            return read_photo(path), None
        try:
            return read_photo(path, hint="it is skipped"), None
        except UserError as error:
            return Image.new("RGB", (1, 1)), str(error)


def ground_truth(split: Split, reference: Reference, size: tuple[int, int]) -> np.ndarray:
    """The annotated mask of a ref, bool (H, W); UserError that names the ref where the annotation is damaged."""
    if reference.absent:
        return np.zeros(size, dtype=bool)
    try:
        return rasterise(reference.segmentation, *size)
    except (ValueError, TypeError, OverflowError) as error:
        where = f"the mask of ref {reference.ref_id} ({split.photo_path(reference)})"
        raise UserError(f"{where} is damaged: {reason(error)}; correct or remove it") from None


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The tensors one after another; in a loader's worker in shared memory.

    There they go in any case. Where it is full, the error is raised here and reaches the main process, which would
    otherwise wait for the batch for ever.
    """
    tensor = torch.cat(tensors)
    return tensor.share_memory_() if get_worker_info() else tensor


def collate_photos(photos: Sequence[EvalBatch]) -> EvalBatch:
    """Several photos as one batch."""
    firsts = list(accumulate((len(p.targets) for p in photos), initial=0))
    return EvalBatch(
        images=joined([p.images for p in photos]),
        tokens=joined([p.tokens for p in photos]),
        photo=joined([p.photo + number for number, p in enumerate(photos)]),
        target=joined([p.target + first for p, first in zip(photos, firsts, strict=False)]),
        targets=[target for p in photos for target in p.targets],
    )


def eval_loader(photos: EvalPhotos, batch_size: int, workers: int, finished: Container[range] = ()) -> DataLoader:
    """This process's share of the batches, without those that are `finished`.

    Which photos share a batch does not depend on the number of processes, nor on what is finished: a network's last
    bits depend on the size of a batch.
    """
    count = len(photos)
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    # The loader cuts them into the same batches again, because only the last one can be short.
    own = chain.from_iterable(shard([batch for batch in batches if batch not in finished]))
    return DataLoader(photos, batch_size, sampler=list(own), num_workers=workers, collate_fn=collate_photos)
