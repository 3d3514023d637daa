"""Response maps in both formats: the small one gives the large one's bits, and a damaged one is refused."""

import numpy as np
import pytest
import torch

from dataset.artifacts import read_images, read_map, write_map, write_mask, write_scores
from dataset.pseudo_masks import PseudoMasks
from dataset.references import Reference
from IRNet.passes import read_response
from utils.errors import UserError
from utils.files import write_json
from utils.maps import at_photo_size, full_maps


@pytest.mark.parametrize("photo", [(480, 640), (333, 500), (3, 2000), (1, 1)])
@pytest.mark.parametrize("side, size", [(10, 320), (2, 64), (3, 100)])
def test_scores_give_the_bits_of_the_full_map(tmp_path, photo, side, size):
    scores = torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(side))
    scores[3] = -scores[3].abs()  # a map without any positive value
    maps = at_photo_size(full_maps(scores, (size, size)), photo).numpy()
    for number in range(4):
        write_map(tmp_path / "full", str(number), maps[number].clip(0))
        write_scores(tmp_path / "native", str(number), scores[number, 0].numpy(), (size, size), photo)
        full, native = (read_response(tmp_path / folder, str(number), photo) for folder in ("full", "native"))
        assert native.shape == photo and native.dtype == np.float32
        assert np.array_equal(full, native)
    assert (tmp_path / "native" / "0.npy").stat().st_size < 700


def test_a_map_by_hand(tmp_path):
    """Scores 1 and -3 in a row of input pixels: 1, 0, -2, -3, rectified 1, 0, 0, 0; then divided by 1.00001."""
    write_scores(tmp_path, "map", np.array([[1.0, -3.0]]), (1, 4), (1, 4))
    assert read_map(tmp_path, "map") == pytest.approx(np.array([[1 / 1.00001, 0, 0, 0]]), abs=1e-7)


@pytest.mark.parametrize("size", [(100_000, 100_000), (0, 4), (-2, -2)])
@pytest.mark.parametrize("field", ["input_size", "photo_size"])
def test_absurd_sizes_are_refused(tmp_path, field, size):
    sizes = {"input_size": (32, 32), "photo_size": (5, 5)} | {field: size}
    write_scores(tmp_path, "map", np.ones((1, 1)), **sizes)
    with pytest.raises(UserError, match="absurd sizes; export it again"):
        read_map(tmp_path, "map")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_scores_are_refused(tmp_path, shape):
    write_scores(tmp_path, "map", np.ones(shape), (32, 32), (5, 5))
    with pytest.raises(UserError, match="absurd sizes; export it again"):
        read_map(tmp_path, "map")


def test_scores_of_another_photo_or_not_finite_are_refused(tmp_path):
    write_scores(tmp_path, "map", np.ones((1, 1)), (32, 32), (5, 5))
    with pytest.raises(UserError, match="map is 5 x 5, its photo 6 x 5"):
        read_response(tmp_path, "map", (6, 5))
    write_scores(tmp_path, "nan", np.array([[1, np.nan]]), (32, 32), (5, 5))
    with pytest.raises(UserError, match="not finite"):
        read_map(tmp_path, "nan")


def test_a_list_without_table_names_photos_of_coco(tmp_path):
    write_json(tmp_path / "toy_names.json", ["12_581857", "13_9"])
    assert list(read_images(tmp_path / "toy_names.json").values()) == [
        "COCO_train2014_000000581857.jpg",
        "COCO_train2014_000000000009.jpg",
    ]


def test_a_pseudo_mask_of_another_photo_is_not_trained_on(tmp_path):
    write_mask(tmp_path, "0_1", np.ones((4, 6), bool))
    for size in ((4, 6), (None, None)):
        assert PseudoMasks(tmp_path, 8)({}, Reference(0, 1, 1, "1.jpg", *size, ("a",)), 0, None)["mask"].all()
    with pytest.raises(UserError, match="0_1.png is 4 x 6, its photo 6 x 4; remove it and make it"):
        PseudoMasks(tmp_path, 8)({}, Reference(0, 1, 1, "1.jpg", 6, 4, ("a",)), 0, None)


def test_a_record_of_other_fields_is_refused(tmp_path):
    for shape in ((), (2, 2, 2)):
        kinds = [("scores", "<f4", shape), ("input_size", "<i4", (2,)), ("photo_size", "<i4", (2,))]
        np.save(tmp_path / "other.npy", np.zeros((), dtype=kinds))
        with pytest.raises(UserError, match="not a two-dimensional array of floats; export it again"):
            read_map(tmp_path, "other")
