"""Normalisation, augmentation and training crops, against figures of the published code."""

import random
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.artifacts import write_label
from IRNet.affinity import search_offsets
from IRNet.data import Corners, Crops, augment, normalise, place, random_offset, rescale
from IRNet.losses import sort_pairs
from tests.golden import figures
from tests.irnet_helpers import published_order


@pytest.fixture(scope="module")
def expected():
    return figures("irnet_data_helpers")


def test_normalisation(expected):
    np.testing.assert_allclose(normalise(expected["img"])[::4, ::4], expected["normalize"], atol=1e-6)
    every_value = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_allclose(normalise(every_value), expected["normalize_all_values"], atol=1e-6)


def test_rescaling_and_top_left_crops(expected):
    for scale in (0.25, 0.5, 0.7312, 1, 1.5):
        suffix = str(scale).replace(".", "p")
        bicubic = rescale(expected["img"], scale, Image.Resampling.BICUBIC)
        nearest = rescale(expected["label"], scale, Image.Resampling.NEAREST)
        assert (bicubic == expected[f"pil_rescale3_{suffix}"]).all()
        assert (nearest == expected[f"pil_rescale0_{suffix}"]).all()
    for size in (48, 64, 96):
        assert (place(expected["img"], size, 0, 0, 0) == expected[f"top_left_crop_img_{size}"]).all()
        assert (place(expected["label"], size, 0, 0, 255) == expected[f"top_left_crop_lab_{size}"]).all()


@pytest.mark.parametrize("seed", range(6))
def test_random_numbers_are_drawn_in_the_published_order(expected, seed):
    rng = random.Random(seed)
    scale = 0.5 + rng.random()
    image = rescale(expected["img"], scale, Image.Resampling.BICUBIC)
    label = rescale(expected["label"], scale, Image.Resampling.NEAREST)
    assert [seed, *label.shape] == expected["seed_scaled_sizes"][seed].tolist()
    step = -1 if rng.getrandbits(1) else 1
    left, top = (random_offset(side, 64, rng) for side in (label.shape[1], label.shape[0]))
    cropped = place(label[:, ::step], 64, top, left, 255)
    assert zlib.crc32(place(image[:, ::step], 64, top, left, 0).tobytes()) == expected[f"seed{seed}.img_crc"]
    assert zlib.crc32(cropped.tobytes()) == expected[f"seed{seed}.lab_crc"]
    photo, label = augment(expected["img"], expected["label"], 64, random.Random(seed))
    assert (photo == place(normalise(image[:, ::step]), 64, top, left, 0)).all() and (label == cropped).all()


def test_pairs_of_a_label_map(expected):
    found = sort_pairs(torch.from_numpy(expected["aff.seg"])[None], 5, search_offsets(5))
    for pairs, kind in zip(found, ("bg", "fg", "neg"), strict=True):
        assert (pairs[0, published_order(5)].flatten(1).numpy() == expected[f"aff.{kind}"]).all()


@pytest.mark.parametrize("size", [32, 64])
def test_crops_depend_on_nothing_but_seed_epoch_and_name(tmp_path, size):
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    label = np.random.default_rng(1).integers(0, 2, (40, 50), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for name in ("0_1", "1_1"):
        write_label(tmp_path, name, label)
    expected, whole_label = augment(photo, label, size, random.Random("5/1/0_1"))
    refs = [("1_1", tmp_path / "photo.png"), ("0_1", tmp_path / "photo.png")]
    for items in (refs, refs[1:]):
        crop, reduced = Crops(items, tmp_path, size, seed=5, epoch=1)[-1]
        assert (crop.numpy() == expected.transpose(2, 0, 1)).all() and reduced.dtype == torch.uint8
        assert reduced.tolist() == [[whole_label[i, j] for j in range(2, size, 4)] for i in range(2, size, 4)]
    assert not torch.equal(Crops(refs, tmp_path, size, seed=5, epoch=2)[-1][0], crop)
    (corner, count), *others = Corners(refs, tmp_path, size)
    expected = np.zeros((3, size, size), np.float32)
    expected[:, :40, :50] = normalise(photo)[:size, :size].transpose(2, 0, 1)
    assert (corner.numpy() == expected).all() and count == 2 and not others
