"""Samples for training and evaluation, the same for every data set and both stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from clip.tokens import tokenize
from dataset.image_cache import photo_reader
from dataset.masks import rasterise
from dataset.photos import to_input
from dataset.references import Reference, Split
from utils.errors import UserError, reason

Sample = dict[str, Any]
Extras = Callable[[Sample, Reference, int, np.random.Generator], Sample]


class SentenceIds:
    """Numbers the sentences of some refs, from 0 on."""

    def __init__(self, references: Sequence[Reference]):
        counts = accumulate((len(r.sentences) for r in references), initial=0)
        self.first = {reference.index: first for reference, first in zip(references, counts, strict=False)}

    def __call__(self, reference: Reference, sentence: int) -> int:
        """The number of a ref's sentence, which is its place in `all_sentences` of the same refs."""
        return self.first[reference.index] + sentence


def all_sentences(references: Sequence[Reference]) -> list[str]:
    """The texts of all sentences, in the order of their numbers."""
    return [text for reference in references for text in reference.sentences]


class TrainSamples(Dataset):
    """One sentence of each ref, drawn anew for each visit.

    Item i: `image` float32 (3, S, S), `tokens` int64 (T,), `ids` (numbers to look up by: `reference`, `sentence`),
    and what `extras` adds.
    The draw depends on (seed, epoch, i) alone: not on the worker, nor on what was drawn before. With `cache_images`, a
    folder, resized photos are kept there.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        query_length: int,
        seed: int,
        extras: Extras,
        cache_images: str | Path | None = None,
    ):
        self.split, self.size, self.query_length, self.seed, self.extras = split, size, query_length, seed, extras
        self.sentence_ids = SentenceIds(split.references)
        self.read = photo_reader(split, size, cache_images)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split.references)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        reference = self.split.references[index]
        random = np.random.default_rng([self.seed, self.epoch, index])
        drawn = int(random.integers(len(reference.sentences)))
        sample = {
            "image": to_input(self.read(self.split.photo_path(reference)).image),
            "tokens": tokenize([reference.sentences[drawn]], self.query_length)[0],
            "ids": {"reference": index, "sentence": self.sentence_ids(reference, drawn)},
        }
        return self.extras(sample, reference, drawn, random)


class NegativeSentences:
    """Stage 1's negatives: sentences of other refs of the same photo, else any of another text.

    Adds `negatives` to a sample's ids: int64 (k,), numbers of sentences.
    """

    def __init__(self, split: Split, count: int):
        self.references, self.count = split.references, count
        self.sentence_ids = SentenceIds(split.references)
        self.of_photo: dict[int | str, list[Reference]] = {}
        for reference in split.references:
            self.of_photo.setdefault(reference.image_id, []).append(reference)
        if count and len({text for r in split.references for text in r.sentences}) < 2:
            raise UserError(f"split '{split.name}' has one distinct sentence only: negatives need two; add refs")

    def candidates(self, reference: Reference) -> list[Reference]:
        """The other refs of the same photo in this split."""
        return [other for other in self.of_photo[reference.image_id] if other is not reference]

    def __call__(self, sample: Sample, reference: Reference, drawn: int, random: np.random.Generator) -> Sample:
        chosen = [self._draw(reference, reference.sentences[drawn], random) for _ in range(self.count)]
        numbers = torch.tensor([self.sentence_ids(r, j) for r, j in chosen], dtype=torch.int64)
        return sample | {"ids": sample["ids"] | {"negatives": numbers}}

    def _draw(self, reference: Reference, positive: str, random: np.random.Generator) -> tuple[Reference, int]:
        others = self.candidates(reference)
        while True:
            # Kept, as published: where the photo has no other ref, the ref's own other sentences can be drawn too.
            pool = others or self.references
            negative = pool[int(random.integers(len(pool)))]
            sentence = int(random.integers(len(negative.sentences)))
            if others or negative.sentences[sentence] != positive:
                return negative, sentence


@dataclass(frozen=True)
class Target:
    """A ref to evaluate: its mask bool (H, W), its box (x1, y1, x2, y2) in pixels, and its size (H, W).

    The size is the annotation's where that says one, else the photo's. Where no masks were asked for, mask and box are
    None and the size is the photo's.
    """

    reference: Reference
    mask: np.ndarray | None
    box: tuple[float, float, float, float] | None
    size: tuple[int, int]


@dataclass(frozen=True)
class EvalBatch:
    """Some photos with all their refs and all their sentences: B photos, R refs, N sentences."""

    images: torch.Tensor  # (B, 3, S, S) float32
    tokens: torch.Tensor  # (N, T) int64
    photo: torch.Tensor  # (N,) int64, the photo that each sentence speaks of
    target: torch.Tensor  # (N,) int64, the place in `targets` of the ref that each sentence names
    targets: list[Target]  # (R)

    def to(self, device: torch.device) -> "EvalBatch":
        moved = {name: getattr(self, name).to(device) for name in ("images", "tokens", "photo", "target")}
        return replace(self, **moved)


class EvalPhotos(Dataset):
    """The photos of a split, each once, with all its refs.

    With `masks` the ground truth comes along. With `cache_images`, a folder, resized photos are kept there.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        query_length: int,
        masks: bool = True,
        cache_images: str | Path | None = None,
    ):
        self.split, self.size, self.query_length, self.masks = split, size, query_length, masks
        photos: dict[str, list[Reference]] = {}
        for reference in split.references:
            photos.setdefault(reference.photo, []).append(reference)
        self.photos = list(photos.values())
        absent = next((r for r in split.references if masks and (r.segmentation is None or r.box is None)), None)
        if absent:
            raise UserError(
                f"split '{split.name}' of {split.dataset} has no mask for ref {absent.name}: it can be trained on and "
                "exported, not evaluated; add masks, or leave it out of --test_split (--test_split none)"
            )
        self.read = photo_reader(split, size, cache_images)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> EvalBatch:
        references = self.photos[number]
        photo = self.read(self.split.photo_path(references[0]))
        sentences = [text for reference in references for text in reference.sentences]
        target = [place for place, reference in enumerate(references) for _ in reference.sentences]
        return EvalBatch(
            images=to_input(photo.image)[None],
            tokens=tokenize(sentences, self.query_length),
            photo=torch.zeros(len(sentences), dtype=torch.int64),
            target=torch.tensor(target),
            targets=[self._target(reference, (photo.height, photo.width)) for reference in references],
        )

    def _target(self, reference: Reference, photo_size: tuple[int, int]) -> Target:
        if not self.masks:
            return Target(reference, None, None, photo_size)
        size = (reference.height or photo_size[0], reference.width or photo_size[1])
        return Target(reference, ground_truth(self.split, reference, size), reference.box, size)


def ground_truth(split: Split, reference: Reference, size: tuple[int, int]) -> np.ndarray:
    """The annotated mask of a ref, bool (H, W); UserError that names the ref where the annotation is damaged."""
    try:
        return rasterise(reference.segmentation, *size)
    except (ValueError, TypeError, OverflowError) as error:
        where = f"the mask of ref {reference.ref_id} ({split.photo_path(reference)})"
        raise UserError(f"{where} is damaged: {reason(error)}; correct or remove it") from None


def collate_photos(photos: list[EvalBatch]) -> EvalBatch:
    """Several photos as one batch."""
    firsts = list(accumulate((len(p.targets) for p in photos), initial=0))
    return EvalBatch(
        images=torch.cat([p.images for p in photos]),
        tokens=torch.cat([p.tokens for p in photos]),
        photo=torch.cat([p.photo + number for number, p in enumerate(photos)]),
        target=torch.cat([p.target + first for p, first in zip(photos, firsts, strict=False)]),
        targets=[target for p in photos for target in p.targets],
    )
