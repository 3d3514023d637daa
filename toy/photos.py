"""The photos of the toy world: each is a painted scene as a JPEG file, with sentences about its objects."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from toy.scenes import Scene, Thing, paint, random_scene
from toy.sentences import Meaning, absent_meanings, phrase, sentences


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


def beyond_one(photo: Photo) -> Iterator[tuple[tuple[Thing, ...], list[str], str | None]]:
    """Sentences of a photo that mean two objects or none that is there: the objects, the sentences, what is wrong.

    What is wrong with those that mean none is an `attribute`, which nothing there has, a `place` or a `relation`.
    """
    rng = np.random.default_rng((photo.image_id, 1))
    if len(photo.described) > 1:
        (first, said), (second, also_said) = photo.described[:2]
        yield (first, second), [f"{said[0][0]} and {also_said[0][0]}"], None
    wrong: dict[str, list[Meaning]] = {}
    for meaning in absent_meanings(photo.scene):
        wrong.setdefault(meaning.kind, []).append(meaning)
    for kind, found in wrong.items():
        texts = [phrase(rng, found[index]) for index in rng.permutation(len(found))[:3]]
        yield (), list(dict.fromkeys(texts)), kind


def make_photos(seed: int, counts: dict[str, int]) -> Iterator[Photo]:
    """The photos of the splits train, val and test, with ids 1, 2, ...; `counts`: photos per split."""
    splits = [split for split in ("train", "val", "test") for _ in range(counts[split])]
    for index, split in enumerate(tqdm(splits, desc="toy world", unit="photo", disable=None)):
        yield make_photo(seed, index + 1, split)
