"""The image cache: the same bits, for several processes at once, after a kill, and never another photo's pixels."""

import fcntl
import os
import pickle
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.image_cache import ImageCache, photo_reader
from dataset.loading import eval_loader, load_splits
from dataset.photos import read_resized
from dataset.samples import EvalPhotos, NegativeSentences, TrainSamples
from tests.golden import REFERENCE
from utils.errors import UserError

SPLIT = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train"])["train"]
SIZE = 48


def photos(folder: Path, count: int = 24) -> list[Path]:
    """Photos of noise of different sizes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (100 + number, 150, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def same(found, expected) -> bool:
    return found[1:] == expected[1:] and np.array_equal(np.asarray(found.image), np.asarray(expected.image))


def fill(cache: ImageCache, paths: list[Path], rounds: int = 1) -> None:
    for path in paths * rounds:
        cache(path)


def test_samples_with_a_cache_are_those_without(tmp_path):
    negatives = NegativeSentences(SPLIT, 2)
    plain, cached = (TrainSamples(SPLIT, SIZE, 20, 0, negatives, folder) for folder in (None, tmp_path))
    for _ in ("filling", "reading"):
        for one, other in zip(plain, cached, strict=False):
            assert torch.equal(one["image"], other["image"]) and one["image"].stride() == other["image"].stride()
            assert torch.equal(one["tokens"], other["tokens"])
    for workers in (0, 2):
        loaders = (eval_loader(EvalPhotos(SPLIT, SIZE, 20, cache_images=f), 2, workers) for f in (None, tmp_path))
        for one, other in zip(*loaders, strict=True):
            assert torch.equal(one.images, other.images)
            assert [t.size for t in one.targets] == [t.size for t in other.targets]
    assert len(list(tmp_path.iterdir())) == 1  # both read the same photos


def test_a_cached_photo_is_not_decoded_again(tmp_path, monkeypatch):
    paths = photos(tmp_path / "photos", 3)
    cache = ImageCache(tmp_path, paths, SIZE)
    expected = [cache(path) for path in paths]
    monkeypatch.setattr("dataset.image_cache.read_resized", None)
    again = ImageCache(tmp_path, paths, SIZE)
    assert all(map(same, map(again, paths), expected))


def test_two_processes_fill_it_at_once(tmp_path):
    paths = photos(tmp_path / "photos")
    cache = ImageCache(tmp_path, paths, SIZE)
    both = [get_context("fork").Process(target=fill, args=(cache, order, 5)) for order in (paths, paths[::-1])]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert (np.asarray(cache.records["checksum"]) > 0).all()
    assert all(same(cache(path), read_resized(path, SIZE)) for path in paths)


def test_the_map_does_not_travel_to_another_process(tmp_path):
    paths = photos(tmp_path / "photos", 2)
    cache = ImageCache(tmp_path, paths, SIZE)
    expected = cache(paths[0])
    travelling = pickle.dumps(cache)
    assert len(travelling) < 2000
    assert same(pickle.loads(travelling)(paths[0]), expected)


def test_killed_while_it_is_filled(tmp_path):
    paths = photos(tmp_path / "photos")
    cache = ImageCache(tmp_path, paths, SIZE)
    for _ in range(4):
        process = get_context("fork").Process(target=fill, args=(cache, paths))
        process.start()
        known = np.count_nonzero(cache.records["checksum"])
        while np.count_nonzero(cache.records["checksum"]) < known + 3 and process.is_alive():
            time.sleep(0.0005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert all(same(ImageCache(tmp_path, paths, SIZE)(path), read_resized(path, SIZE)) for path in paths[::5])


@pytest.mark.parametrize("field", ["pixels", "height", "checksum"])
def test_half_a_record_is_read_from_the_photo_again(tmp_path, field):
    paths = photos(tmp_path / "photos", 2)
    cache = ImageCache(tmp_path, paths, SIZE)
    fill(cache, paths)
    cache.records[field][1].flat[0] ^= 1
    assert all(same(cache(path), read_resized(path, SIZE)) for path in paths)


def test_a_photo_that_was_replaced_or_removed(tmp_path):
    paths = photos(tmp_path / "photos", 2)
    cache = ImageCache(tmp_path, paths, SIZE)
    fill(cache, paths)
    Image.new("RGB", (30, 20), "red").save(paths[0])
    assert same(cache(paths[0]), read_resized(paths[0], SIZE))
    paths[1].unlink()
    with pytest.raises(UserError, match=r"01.png is not there; complete the image folder"):
        cache(paths[1])


def test_other_photos_and_another_size_have_a_file_of_their_own(tmp_path):
    paths = photos(tmp_path / "photos", 3)
    caches = [ImageCache(tmp_path, *key) for key in ((paths, 8), (paths[::-1], 8), (paths[:2], 8), (paths, 9))]
    assert len({cache.file for cache in caches}) == 4
    assert caches[0].file.stat().st_size == 3 * (8 * 8 * 3 + 16)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(25_000)]
    with pytest.raises(UserError, match=r"needs 30,000,000 MB more in .*; choose another --cache_images") as caught:
        ImageCache(tmp_path / "cache", paths, 20_000)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_the_file_is_one_that_a_c_library_can_fill(tmp_path, monkeypatch):
    """Where the file system cannot reserve, glibc's posix_fallocate reads and writes, and refuses a file to append."""
    modes = []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, *_: modes.append(fcntl.fcntl(file, fcntl.F_GETFL)))
    ImageCache(tmp_path, photos(tmp_path / "photos", 1), SIZE)
    assert [mode & (os.O_ACCMODE | os.O_APPEND) for mode in modes] == [os.O_RDWR]


def test_no_photo_at_all(tmp_path):
    assert not ImageCache(tmp_path, [], SIZE).place


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*; choose another --cache_images"):
        photo_reader(SPLIT, SIZE, tmp_path / "file")
