"""Photos as IRNet sees them: normalised, and augmented in its training (semantics of `imutils` in the public code)."""

from random import Random

import numpy as np
from PIL import Image

from dataset.artifacts import UNKNOWN
from dataset.photos import MEAN, STD

_NORMALISED = ((np.arange(256)[:, None] / 255.0 - MEAN) / STD).astype(np.float32)  # (256, 3), computed in float64


def normalise(photo: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to float32 (H, W, 3) with ImageNet's statistics."""
    return _NORMALISED[photo, np.arange(3)]


def rescale(image: np.ndarray, scale: float, resample: Image.Resampling) -> np.ndarray:
    """uint8 (H, W[, 3]) resized by `scale`; sides are rounded half to even."""
    height, width = (max(1, int(np.round(side * scale))) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def random_offset(side: int, size: int, rng: Random) -> int:
    """Where an image's side begins in a crop of `size`: below 0 where it is cut, above where it is padded."""
    return -rng.randrange(side - size + 1) if side > size else rng.randrange(size - side + 1)


def place(image: np.ndarray, size: int, top: int, left: int, fill: int) -> np.ndarray:
    """The crop of size x size that has the image's corner at (top, left), `fill` where there is no image."""
    crop = np.full((size, size, *image.shape[2:]), fill, dtype=image.dtype)
    seen = image[max(0, -top) : size - top, max(0, -left) : size - left]
    y, x = max(0, top), max(0, left)
    crop[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return crop


def augment(photo: np.ndarray, label: np.ndarray, size: int, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Random scale in 0.5..1.5, mirroring and crop. photo: uint8 (H, W, 3), label: uint8 (H, W).

    Returns float32 (size, size, 3), normalised and padded with 0, and uint8 (size, size), padded with `UNKNOWN`.
    """
    scale = 0.5 + rng.random()
    photo = normalise(rescale(photo, scale, Image.Resampling.BICUBIC))
    label = rescale(label, scale, Image.Resampling.NEAREST)
    if rng.getrandbits(1):
        photo, label = photo[:, ::-1], label[:, ::-1]
    height, width = label.shape
    left = random_offset(width, size, rng)  # drawn before the other, as published
    top = random_offset(height, size, rng)
    # Kept quirk: padding after normalisation, so with the mean colour.
    return place(photo, size, top, left, 0), place(label, size, top, left, UNKNOWN)
