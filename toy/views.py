"""Images with captions to train the toy CLIP on: parts and versions of photos whose seed no toy world uses.

A published CLIP has seen products on plain paper as well as crowded streets. Its stand-in sees close-ups of single
objects, whole photos, and photos in which everything but a blob at one object fades to the mean colour, which is what
stage 1's soft response maps and PRMS's hard ones do to a photo. Captions of photos speak of places and relations too,
as the sentences of the data set do. No mask is used. The centre of the blob comes from the generator, which knows where
it drew the object; the shape of the blob is random.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from clip import tokenize
from dataset.photos import MEAN, STD
from toy.photos import Photo
from toy.scenes import COLOURS, SHAPES, Scene, Thing
from toy.sentences import Meaning, has_attributes, phrase, resolve, vocabulary

CLOSE_UP, FOCUS, WHOLE = range(3)  # kinds of views
CAPTION_LENGTH = 16  # tokens; no toy sentence has more


class View(NamedTuple):
    """An image with a caption that is true of it. A close-up has no scene, a whole photo no single object."""

    image: torch.Tensor  # float32 (3, S, S), normalised
    text: str
    meaning: Meaning
    scene: Scene | None
    thing: Thing | None

    def agrees_with(self, meaning: Meaning) -> bool:
        """Whether a sentence of this meaning is true of the image: of its object, or of any object of a whole photo.

        A close-up does not show where its object is, so sentences about places and relations are false there.
        """
        if self.scene is None:
            return meaning.kind == "attribute" and has_attributes(self.thing, meaning)
        found = resolve(self.scene, meaning, strict=False)
        return bool(found) if self.thing is None else self.thing in found


@dataclass
class ToyViews(Dataset):
    """`count` views of photos, each drawn from (seed, index)."""

    photos: list[Photo]
    count: int
    size: int  # pixels; views are square
    shares: tuple[float, float, float]  # the probabilities of a close-up, a focused view and a whole photo
    gain: float  # that of `blob_mask`
    seed: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> View:
        rng = np.random.default_rng((self.seed, index))
        kind = rng.choice(3, p=self.shares)
        photo = self.photos[rng.integers(len(self.photos))]
        thing, texts = photo.described[rng.integers(len(photo.described))]
        pixels = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]  # RGB
        if kind == CLOSE_UP:  # which does not tell a small object from a large one
            pixels, thing = close_up(rng, pixels, thing), replace(thing, size=None)
        pixels = cv2.resize(pixels, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        image = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)  # (S, S, 3)
        if kind == FOCUS:
            image *= blob_mask(rng, photo.scene, thing, self.size, self.gain)[..., None]
        if kind != CLOSE_UP and rng.random() < 0.6:
            text, meaning = texts[rng.integers(len(texts))]
        else:  # some of the object's attributes, among them its colour or its shape
            says = rng.random(3) < (0.5, 0.5, 0.75)
            says[2] |= not says[1]
            attributes = (thing.size, thing.colour, thing.shape)
            meaning = Meaning(*(value if said else None for value, said in zip(attributes, says, strict=True)))
            text = phrase(rng, meaning)
        image = torch.from_numpy(image).permute(2, 0, 1)
        scene, thing = None if kind == CLOSE_UP else photo.scene, None if kind == WHOLE else thing
        return View(image, text, meaning, scene, thing)


def close_up(rng: np.random.Generator, pixels: np.ndarray, thing: Thing) -> np.ndarray:
    """A square part of the photo that contains the object and is 1.1 to 2.2 times as wide as it."""
    side = int(min(thing.radius * rng.uniform(2.2, 4.4), *pixels.shape[:2]))
    slack = max(side / 2 - thing.radius, 0)
    corner = np.array((thing.x, thing.y)) - side / 2 + rng.uniform(-slack, slack, 2)
    x, y = corner.clip(0, (pixels.shape[1] - side, pixels.shape[0] - side)).astype(int)
    return pixels[y : y + side, x : x + side]


def blob_mask(rng: np.random.Generator, scene: Scene, thing: Thing, size: int, gain: float) -> np.ndarray:
    """A soft random blob at an object, on a floor that is 0 in a third of all masks: float32 (size, size).

    The blob's peak is 0.6 to 1, or with a floor of 0 at times 1 to `gain`, as in the unnormalised maps of PRMS.
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


@cache
def vocabulary_rows() -> list[int]:
    """The token ids that sentences of the toy world use, in ascending order: rows of CLIP's token embedding."""
    return sorted({int(token) for token in tokenize(vocabulary()).flatten()})


def collate(views: list[View]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch of B views.

    Images float32 (B, 3, S, S); tokens int64 (B, 16), as indices into `vocabulary_rows`; and truth bool (B, B), whether
    caption j is true of image i.
    """
    truth = torch.tensor([[view.agrees_with(other.meaning) for other in views] for view in views])
    tokens = tokenize([view.text for view in views], CAPTION_LENGTH)
    rows = torch.searchsorted(torch.tensor(vocabulary_rows()), tokens)
    return torch.stack([view.image for view in views]), rows, truth


def collate_classes(views: list[View]) -> tuple[torch.Tensor, torch.Tensor]:
    """B close-ups as images, float32 (B, 3, S, S), and the classes of their shapes and colours, int64 (B, 2)."""
    classes = [(SHAPES.index(view.thing.shape), list(COLOURS).index(view.thing.colour)) for view in views]
    return torch.stack([view.image for view in views]), torch.tensor(classes)
