"""The dense CRF and the lattice under it, against figures of the published code and worked out by hand."""

import zlib

import numpy as np
import pytest
import torch

from dataset.artifacts import FOREGROUND, read_label
from IRNet import cam_to_ir_label
from IRNet.cam_to_ir_label import ir_labels, make_labels
from IRNet.crf import DenseCRF
from IRNet.lattice import Lattice
from tests.golden import figures
from tests.irnet_helpers import bits, photo
from tests.reference.golden_weights import upsample

THRESHOLDS = {"fg": 0.3, "bg": 0.1}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["astronaut", "china", "coffee", "chelsea"])
def test_photo_labels_and_marginals_are_the_published_ones(name):
    expected, image = figures(f"irnet_crf_{name}"), photo(name)
    assert zlib.crc32(image.tobytes()) == expected["photo_crc"]
    size = tuple(expected["size"])
    response = torch.from_numpy(upsample(expected["cam10"], size))
    crf = DenseCRF(torch.from_numpy(image))
    labels = torch.stack([response > threshold for threshold in THRESHOLDS.values()], dim=-1)
    rounds = {count: crf(labels, rounds=count).numpy() for count in (1, 5, 10)}
    for column, key in enumerate(THRESHOLDS):
        assert (labels[..., column].numpy() == bits(expected[f"{key}.label"], size)).all()
        assert ((rounds[10][..., column] > 0.5) == bits(expected[f"{key}.crf"], size)).mean() >= 0.999
        for count, q in rounds.items():
            error = np.abs(q[::5, ::5, column] - expected[f"{key}.q1_t{count}_sub5"])
            # Single pixels between two labels move furthest: by 6e-4 on one processor.
            assert error.mean() < 1e-5 and error.max() < 1e-2
    assert (ir_labels(crf, response[None], 0.3, 0.1)[0].numpy() == expected["ir_label"]).mean() >= 0.999


def test_small_photo_to_the_third_decimal_whichever_labels_it_has():
    expected = figures("irnet_crf_small")
    crf = DenseCRF(torch.from_numpy(expected["img"]))
    labels = torch.from_numpy(np.stack([expected["fg.label"], expected["bg.label"]], axis=-1) > 0)
    for column, key in enumerate(THRESHOLDS):
        for suffix, count in (("_t1", 1), ("_t2", 2), ("_t3", 3), ("", 10)):
            q = crf(labels, rounds=count)[..., column].numpy()
            np.testing.assert_allclose(q, expected[f"{key}.q1{suffix}"], atol=5e-4)
        alone = crf(labels[..., column, None])[..., 0]
        np.testing.assert_allclose(alone, expected[f"{key}.q1"], atol=5e-4)


def test_each_ref_of_a_photo_has_the_label_it_has_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(cam_to_ir_label, "PIXELS_AT_A_TIME", 4 * 12 * 16)  # four refs
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    responses = {f"0_{ref}": ref * rng.random((12, 16), dtype=np.float32) for ref in range(6)}
    outcomes = dict(make_labels(image, responses, (12, 16), tmp_path, 0.3, 0.1, torch.device("cpu")))
    crf = DenseCRF(torch.from_numpy(image))
    for name, response in responses.items():
        alone = ir_labels(crf, torch.from_numpy(response)[None], 0.3, 0.1)[0].numpy()
        assert np.array_equal(read_label(tmp_path, name), alone) and outcomes[name] == (alone == FOREGROUND).any()
    assert set(outcomes.values()) == {True, False}


def test_lattice_approximates_the_gaussian_sum():
    points = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    values = torch.rand(3000, 1, generator=torch.Generator().manual_seed(1))
    exact = torch.exp((points[:, :, None] - points[:, None]).square().sum(0) / -2) @ values
    ratio = Lattice(points).filter(values) / exact
    assert ratio.std() / ratio.mean() < 0.1  # up to a constant factor, and roughly: that is what the lattice is


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 2000), (5, 3)])
def test_photos_of_any_size(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = torch.from_numpy(rng.random((*size, 2)) > 0.5)
    q = DenseCRF(torch.from_numpy(image))(labels)
    assert q.shape == labels.shape and torch.isfinite(q).all()
