"""The dense CRF and the lattice under it, against figures of the published code's CRF and worked by hand."""

import zlib

import numpy as np
import pytest
import torch

from IRNet.cam_to_ir_label import ir_label
from IRNet.crf import DenseCRF
from IRNet.lattice import build_lattice
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
        agreement = (rounds[10][..., column] > 0.5) == bits(expected[f"{key}.crf"], size)
        assert agreement.mean() >= 0.999
        for count, q in rounds.items():
            np.testing.assert_allclose(q[::5, ::5, column], expected[f"{key}.q1_t{count}_sub5"], atol=1e-3)
    label = ir_label(crf, response, 0.3, 0.1).numpy()
    assert (label == expected["ir_label"]).mean() >= 0.999


def test_small_photo_to_the_fourth_decimal():
    expected = figures("irnet_crf_small")
    crf = DenseCRF(torch.from_numpy(expected["img"]))
    labels = torch.from_numpy(np.stack([expected["fg.label"], expected["bg.label"]], axis=-1) > 0)
    for column, key in enumerate(THRESHOLDS):
        for suffix, count in (("_t1", 1), ("_t2", 2), ("_t3", 3), ("", 10)):
            q = crf(labels, rounds=count)[..., column].numpy()
            np.testing.assert_allclose(q, expected[f"{key}.q1{suffix}"], atol=1e-4)


def test_labels_of_one_photo_do_not_influence_each_other():
    expected = figures("irnet_crf_small")
    crf = DenseCRF(torch.from_numpy(expected["img"]))
    first, second = (torch.from_numpy(expected[f"{key}.label"] > 0)[..., None] for key in THRESHOLDS)
    both = crf(torch.cat([first, second], dim=-1))
    torch.testing.assert_close(both[..., :1], crf(first), atol=1e-6, rtol=0)
    torch.testing.assert_close(both[..., 1:], crf(second), atol=1e-6, rtol=0)


def test_lattice_approximates_the_gaussian_sum():
    points = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    values = torch.rand(3000, 1, generator=torch.Generator().manual_seed(1))
    lattice = build_lattice(points)
    distances = (points[:, :, None] - points[:, None]).square().sum(0)
    exact = torch.exp(-distances / 2) @ values
    ratio = lattice.filter(values) / exact
    assert ratio.std() / ratio.mean() < 0.1  # up to a constant factor, and roughly: that is what the lattice is


def test_one_point_reads_back_its_own_value():
    lattice = build_lattice(torch.tensor([[0.3], [0.2]]))
    single, double = lattice.filter(torch.ones(1, 1)), lattice.filter(torch.full((1, 1), 2.0))
    assert single.item() > 0 and double.item() == pytest.approx(2 * single.item())


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 2000), (5, 3)])
def test_any_size_of_photo(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = torch.from_numpy(rng.random((*size, 2)) > 0.5)
    q = DenseCRF(torch.from_numpy(image))(labels)
    assert q.shape == labels.shape and torch.isfinite(q).all()


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        DenseCRF(torch.zeros(4, 5, 3, dtype=torch.uint8))(torch.zeros(5, 4, 1, dtype=torch.bool))
