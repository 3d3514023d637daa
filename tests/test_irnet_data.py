"""Normalisation, augmentation and training samples, against figures of the published code."""

import random
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.artifacts import write_label
from IRNet.data import PlainSet, TrainingItem, TrainingSet, collate
from IRNet.images import augment, normalise, place, random_offset, rescale
from IRNet.losses import sort_pairs
from IRNet.passes import Refused
from tests.golden import figures
from tests.irnet_helpers import published_order


@pytest.fixture(scope="module")
def expected():
    return figures("irnet_data_helpers")


def test_normalisation(expected):
    np.testing.assert_allclose(normalise(expected["img"])[::4, ::4], expected["normalize"], atol=1e-6)
    every_value = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_allclose(normalise(every_value), expected["normalize_all_values"], atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7312, 1, 1.5])
def test_rescaling(expected, scale):
    suffix = str(scale).replace(".", "p")
    bicubic = rescale(expected["img"], scale, Image.Resampling.BICUBIC)
    nearest = rescale(expected["label"], scale, Image.Resampling.NEAREST)
    assert (bicubic == expected[f"pil_rescale3_{suffix}"]).all()
    assert (nearest == expected[f"pil_rescale0_{suffix}"]).all()


@pytest.mark.parametrize("size", [48, 64, 96])
def test_top_left_crop(expected, size):
    assert (place(expected["img"], size, 0, 0, 0) == expected[f"top_left_crop_img_{size}"]).all()
    assert (place(expected["label"], size, 0, 0, 255) == expected[f"top_left_crop_lab_{size}"]).all()


@pytest.mark.parametrize("seed", range(6))
def test_draws_come_in_the_published_order(expected, seed):
    rng = random.Random(seed)
    scale = 0.5 + rng.random()
    image = rescale(expected["img"], scale, Image.Resampling.BICUBIC)
    label = rescale(expected["label"], scale, Image.Resampling.NEAREST)
    assert [seed, *label.shape] == expected["seed_scaled_sizes"][seed].tolist()
    mirrored = rng.getrandbits(1)
    step = -1 if mirrored else 1
    left, top = (random_offset(side, 64, rng) for side in (label.shape[1], label.shape[0]))
    cropped = place(label[:, ::step], 64, top, left, 255)
    assert zlib.crc32(place(image[:, ::step], 64, top, left, 0).tobytes()) == expected[f"seed{seed}.img_crc"]
    assert zlib.crc32(cropped.tobytes()) == expected[f"seed{seed}.lab_crc"]
    photo, same_label = augment(expected["img"], expected["label"], 64, random.Random(seed))
    assert (same_label == cropped).all()
    assert (photo == place(normalise(image[:, ::step]), 64, top, left, 0)).all()


def test_pairs_of_a_label_map(expected):
    found = sort_pairs(torch.from_numpy(expected["aff.seg"])[None], 5)
    for pairs, kind in zip(found, ("bg", "fg", "neg"), strict=True):
        assert (pairs[0, published_order(5)].flatten(1).numpy() == expected[f"aff.{kind}"]).all()


def test_samples_depend_on_seed_epoch_and_name_alone(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("0_1", "1_2"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{name}.jpg")
        write_label(tmp_path, name, rng.integers(0, 2, (40, 50)))
    items = [TrainingItem(name, tmp_path / f"{name}.jpg") for name in ("0_1", "1_2")]
    forward, backward = (TrainingSet(order, tmp_path, 32, 5, 1) for order in (items, items[::-1]))
    assert all(torch.equal(a, b) for a, b in zip(forward[0], backward[1], strict=True))
    other_epoch = TrainingSet(items, tmp_path, 32, 5, 2)
    assert not torch.equal(forward[0][0], other_epoch[0][0])
    photo, label = forward[0]
    assert photo.shape == (3, 32, 32) and label.shape == (8, 8) and label.dtype == torch.uint8


@pytest.fixture
def item(tmp_path):
    """A ref whose photo and IR label are random, (40, 50)."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    label = rng.integers(0, 2, (40, 50), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    write_label(tmp_path, "0_1", label)
    return TrainingItem("0_1", tmp_path / "photo.png"), photo, label


def test_a_label_is_reduced_at_every_fourth_pixel_from_the_third_on(item, tmp_path):
    ref, *pixels = item
    photo, label = augment(*pixels, 32, random.Random("5/1/0_1"))
    found_photo, reduced = TrainingSet([ref], tmp_path, 32, 5, 1)[0]
    assert (found_photo.numpy() == photo.transpose(2, 0, 1)).all()
    assert reduced.shape == (8, 8)
    assert all(reduced[i, j] == label[4 * i + 2, 4 * j + 2] for i in range(8) for j in range(8))


@pytest.mark.parametrize("size", [32, 64])
def test_plain_photos_are_cut_at_the_top_left(item, size):
    ref, photo, _ = item
    (plain,) = PlainSet([ref], size)[0]
    seen = normalise(photo)[:size, :size].transpose(2, 0, 1)
    assert plain.shape == (3, size, size)
    assert (plain[:, : seen.shape[1], : seen.shape[2]].numpy() == seen).all()
    assert not plain[:, seen.shape[1] :].any() and not plain[:, :, seen.shape[2] :].any()


def test_unreadable_samples_are_handed_on_as_refused(tmp_path):
    write_label(tmp_path, "0_1", np.zeros((4, 5)))
    Image.new("RGB", (50, 40)).save(tmp_path / "0_1.jpg")
    items = [TrainingItem("0_1", tmp_path / "0_1.jpg"), TrainingItem("1_2", tmp_path / "1_2.jpg")]
    samples = TrainingSet(items, tmp_path, 32, 0, 0)
    assert isinstance(samples[0], Refused) and "another size" in samples[0].reason
    assert isinstance(samples[1], Refused) and "1_2.jpg is not there" in samples[1].reason
    assert collate([samples[0], samples[1]]).tensors == []
