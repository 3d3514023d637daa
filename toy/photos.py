"""The photos of the toy world: each is a painted scene as a JPEG file, with sentences about its objects."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from toy.scenes import Scene, Thing, paint, random_scene
from toy.sentences import Meaning, sentences


class Photo(NamedTuple):
    """A photo, and those of its objects of which at least two sentences can be said, each with its sentences."""

    image_id: int
    split: str
    scene: Scene
    jpeg: bytes
    described: list[tuple[Thing, list[tuple[str, Meaning]]]]


def make_photo(seed: int, image_id: int, split: str) -> Photo:
    """The photo `image_id` of the world with this seed; it depends on nothing else."""
    rng = np.random.default_rng((seed, image_id))
    described = []
    while not described:
        scene = random_scene(rng, int(rng.integers(2, 5)))
        said = [(thing, sentences(rng, scene, thing)) for thing in scene.things]
        described = [(thing, texts) for thing, texts in said if len(texts) > 1]
    quality = int(rng.integers(85, 96))
    _, jpeg = cv2.imencode(".jpg", paint(rng, scene)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Photo(image_id, split, scene, jpeg.tobytes(), described)


def make_photos(seed: int, counts: dict[str, int]) -> Iterator[Photo]:
    """The photos of the splits train, val and test, with ids 1, 2, ...; `counts`: photos per split."""
    splits = [split for split in ("train", "val", "test") for _ in range(counts[split])]
    for index, split in enumerate(tqdm(splits, desc="toy world", unit="photo", disable=None)):
        yield make_photo(seed, index + 1, split)
