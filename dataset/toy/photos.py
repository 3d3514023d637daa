"""The photos of the toy world: each a painted scene as a JPEG file, with sentences about its objects."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from dataset.toy.scenes import Scene, Thing, paint, random_scene
from dataset.toy.sentences import Meaning, sentences

SPLITS = ("train", "val", "test")


class Photo(NamedTuple):
    """One photo: its scene, its JPEG file, and the sentences of the objects that have at least two."""

    image_id: int
    split: str
    scene: Scene
    jpeg: bytes
    spoken_of: list[tuple[Thing, list[tuple[str, Meaning]]]]


def make_photo(seed: int, image_id: int, split: str) -> Photo:
    """The photo `image_id` of the world of this seed; it depends on nothing else."""
    rng = np.random.default_rng((seed, image_id))
    while True:
        scene = random_scene(rng, int(rng.integers(2, 5)))
        said = [(thing, sentences(rng, scene, thing)) for thing in scene.things]
        spoken_of = [(thing, texts) for thing, texts in said if len(texts) > 1]
        if spoken_of:
            break
    quality = int(rng.integers(85, 96))
    _, jpeg = cv2.imencode(".jpg", paint(rng, scene)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Photo(image_id, split, scene, jpeg.tobytes(), spoken_of)


def make_photos(seed: int, counts: dict[str, int]) -> Iterator[Photo]:
    """The photos of all splits, ids 1, 2, ...; `counts`: photos per split."""
    of_split = [split for split in SPLITS for _ in range(counts[split])]
    for index, split in enumerate(tqdm(of_split, desc="toy world", unit="photo", disable=None)):
        yield make_photo(seed, index + 1, split)
