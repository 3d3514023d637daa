"""Images and captions on which the toy CLIP is trained: scenes of another seed than any toy world's, never a mask.

A published CLIP has seen products on plain paper beside crowded streets. Its stand-in sees close-ups of single objects,
whole photos, and photos in which everything but a blob at one object is faded to the mean colour, as stage 1's soft
response maps and PRMS's hard ones do to an image. The blob comes from the generator's knowledge of where it drew the
object; its outline is random and tells nothing of the object's. It is used here, in place of web photos, and nowhere in
training.
"""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from clip.tokens import tokenize
from dataset.photos import MEAN, STD
from dataset.toy.photos import Photo
from dataset.toy.scenes import Scene, Thing
from dataset.toy.sentences import Meaning, has_attributes, phrase, resolve, vocabulary

CLOSE_UP, FOCUS, WHOLE = range(3)  # kinds of views
CAPTION_LENGTH = 16  # tokens; no toy sentence has more


class View(NamedTuple):
    """An image with a caption that is true of it."""

    image: torch.Tensor  # (3, S, S) normalised
    text: str
    meaning: Meaning
    shown: Scene | Thing  # a whole scene, or the one object that can be seen

    def agrees_with(self, meaning: Meaning) -> bool:
        """Whether a sentence of this meaning is true of the image; of a single object no place is known."""
        if isinstance(self.shown, Scene):
            return bool(resolve(self.shown, meaning, strict=False))
        return meaning.kind == "attribute" and has_attributes(self.shown, meaning)


class ToyViews(Dataset):
    """`count` views of photos, each drawn from (seed, index); `shares`: how many are close-ups, focused and whole."""

    def __init__(
        self, photos: list[Photo], count: int, size: int, shares: tuple[float, float, float], gain: float, seed: int
    ):
        self.photos, self.count, self.size, self.seed = photos, count, size, seed
        self.shares, self.gain = shares, gain

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> View:
        rng = np.random.default_rng((self.seed, index))
        kind = rng.choice(3, p=self.shares)
        photo = self.photos[rng.integers(len(self.photos))]
        thing, said = photo.spoken_of[rng.integers(len(photo.spoken_of))]
        pixels = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        if kind == CLOSE_UP:
            pixels, thing = close_up(rng, pixels, thing), replace(thing, size=None)
        image = normalised(pixels, self.size)
        if kind == FOCUS:
            image *= blob_mask(rng, photo.scene, thing, self.size, self.gain)[..., None]
        if kind == WHOLE and rng.random() < 0.5:
            text, meaning = said[rng.integers(len(said))]
        else:
            meaning = _some_attributes(rng, thing)
            text = phrase(rng, meaning)
        shown = photo.scene if kind == WHOLE else thing
        return View(torch.from_numpy(image).permute(2, 0, 1), text, meaning, shown)


def collate(views: list[View]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (B, 3, S, S), tokens (B, 16) as places in the vocabulary, and the truth (B, B) of caption j of image i."""
    truth = torch.tensor([[view.agrees_with(other.meaning) for other in views] for view in views])
    return torch.stack([view.image for view in views]), vocabulary_tokens([view.text for view in views]), truth


def _some_attributes(rng: np.random.Generator, thing: Thing) -> Meaning:
    """A random part of what can be said of an object, its colour or its shape among it."""
    size, colour, shape = (rng.random(3) < (0.5, 0.5, 0.75)).tolist()
    return Meaning(
        thing.size if size else None, thing.colour if colour else None, thing.shape if shape or not colour else None
    )


def normalised(pixels: np.ndarray, size: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) as the encoders see it: float32 (size, size, 3)."""
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    return (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


def close_up(rng: np.random.Generator, pixels: np.ndarray, thing: Thing) -> np.ndarray:
    """A square part of the photo with the object in it, 1.1 to 2.2 times as wide as the object."""
    side = int(min(thing.radius * rng.uniform(2.2, 4.4), *pixels.shape[:2]))
    slack = max(side / 2 - thing.radius, 0)
    corner = np.array((thing.x, thing.y)) - side / 2 + rng.uniform(-slack, slack, 2)
    x, y = (corner.clip(0, (pixels.shape[1] - side, pixels.shape[0] - side))).astype(int)
    return pixels[y : y + side, x : x + side]


def vocabulary_rows() -> list[int]:
    """The token ids that sentences of the toy world use, ascending."""
    return sorted({int(token) for token in tokenize(vocabulary()).flatten()})


def vocabulary_tokens(texts: list[str]) -> torch.Tensor:
    """Tokens of sentences as places in `vocabulary_rows`, int64 (N, 16)."""
    return torch.from_numpy(np.searchsorted(vocabulary_rows(), tokenize(texts, CAPTION_LENGTH).numpy()))


def blob_mask(rng: np.random.Generator, scene: Scene, thing: Thing, size: int, gain: float) -> np.ndarray:
    """A random soft blob at an object on a random floor, float32 (size, size).

    The floor is 0 in a third of all; at the blob the value is 0.6 to 1, and with `gain` > 1 at times up to that, as in
    the unnormalised maps of PRMS.
    """
    cells = int(rng.choice((10, 10, 28)))
    y, x = np.mgrid[0:cells, 0:cells] / (cells - 1)
    spread = rng.uniform(0.9, 1.6, 2) * thing.radius + rng.uniform(0, 0.04) * scene.width
    offset = rng.normal(0, 0.2, 2) * thing.radius
    distance = np.hypot(
        (x * scene.width - thing.x - offset[0]) / spread[0], (y * scene.height - thing.y - offset[1]) / spread[1]
    )
    blob = np.exp(-(distance ** rng.uniform(2, 6)) * 0.7)
    floor = float(rng.choice((0, rng.uniform(0, 0.5), rng.uniform(0.4, 0.9))))
    peak = rng.uniform(0.6, 1) if floor or rng.random() < 0.5 else np.exp(rng.uniform(0, np.log(gain)))
    mask = (peak * (floor + (1 - floor) * blob)).astype(np.float32)
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
