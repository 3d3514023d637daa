"""The files between the stages: both formats of response maps hold the same, and a damaged file is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.artifacts import (
    instances_path,
    map_path,
    names_path,
    read_images,
    read_label,
    read_map,
    read_mask,
    write_label,
    write_map,
    write_mask,
    write_names,
    write_scores,
)
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.maps import at_photo_size, full_maps


@pytest.mark.parametrize("photo", [(480, 640), (333, 500), (3, 2000), (1, 1)])
@pytest.mark.parametrize(("side", "size"), [(10, 320), (3, 100)])
def test_scores_give_the_bits_of_the_full_map(tmp_path, photo, side, size):
    scores = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(side))
    scores[1] = -scores[1].abs()  # a map without any positive value
    for number, response in enumerate(at_photo_size(full_maps(scores, (size, size)), photo).numpy()):
        write_map(tmp_path / "full", str(number), response)
        write_scores(tmp_path / "native", str(number), scores[number, 0].numpy(), (size, size), photo)
        native = read_map(tmp_path / "native", str(number))
        assert (native.shape, native.dtype) == (photo, np.float32)
        assert np.array_equal(native, read_map(tmp_path / "full", str(number)))
    assert map_path(tmp_path / "native", "0").stat().st_size < 2000


def test_a_map_by_hand(tmp_path):
    """Scores 1 and -3 in a row of input pixels: 1, 0, -2, -3, rectified 1, 0, 0, 0; then divided by 1.00001."""
    write_scores(tmp_path, "map", np.array([[1.0, -3.0]]), (1, 4), (1, 4))
    assert read_map(tmp_path, "map") == pytest.approx(np.array([[1 / 1.00001, 0, 0, 0]]), abs=1e-6)


def test_a_map_replaces_one_of_the_other_format(tmp_path):
    write_scores(tmp_path, "map", np.ones((2, 2)), (4, 4), (3, 5))
    write_map(tmp_path, "map", np.zeros((6, 7)))
    assert read_map(tmp_path, "map").shape == (6, 7)
    write_scores(tmp_path, "map", np.ones((2, 2)), (4, 4), (3, 5))
    assert read_map(tmp_path, "map").shape == (3, 5)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


def test_an_absent_map_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the response map .*0_1\.npy is not there; export it with"):
        read_map(tmp_path, "0_1")


def test_names_and_photos_are_read_as_written_or_are_those_of_coco(tmp_path):
    file = names_path(tmp_path, "refcocog", "train")
    images = {"1_9": "b.jpg", "0_581857": "a/b.jpg"}
    write_names(file, images)
    assert file.name == "refcocog_train_names.json"
    assert list(read_images(file).items()) == list(images.items())
    write_json(tmp_path / "toy_names.json", ["12_581857"])  # without a table, as published
    assert read_images(tmp_path / "toy_names.json") == {"12_581857": "COCO_train2014_000000581857.jpg"}


def test_labels_and_masks_are_read_as_written(tmp_path):
    label = np.array([[0, 1, 255], [1, 0, 0]], np.uint8)
    write_label(tmp_path / "ir_label", "0_1", label)
    assert np.array_equal(read_label(tmp_path / "ir_label", "0_1"), label)
    write_mask(tmp_path, "0_1", label > 0, instances=[{"instance": 1}])
    assert read_json(instances_path(tmp_path, "0_1"), "") == [{"instance": 1}]
    assert np.array_equal(read_mask(tmp_path, "0_1", (2, 3)), label > 0)
    Image.fromarray(np.dstack([np.full_like(label, 255), label])).save(tmp_path / "0_3.png")  # its shape is in alpha
    assert np.array_equal(read_mask(tmp_path, "0_3"), label > 0)
    with pytest.raises(UserError, match=r"0_1\.png is 2 x 3, its photo 3 x 2; remove it and make it with"):
        read_mask(tmp_path, "0_1", (3, 2))
    with pytest.raises(UserError, match=r"0_2\.png is not there; make it with"):
        read_mask(tmp_path, "0_2")
