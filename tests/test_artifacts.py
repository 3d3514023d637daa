"""The files between the stages: both formats of response maps hold the same, and a damaged file is refused."""

import io

import numpy as np
import pytest
import torch

from dataset.artifacts import (
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
from utils.files import write_json
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


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


SCORES = {"scores": np.ones((1, 1), np.float32), "input_size": (32, 32), "photo_size": (5, 5)}
FOUR_TERABYTES = saved(np.zeros((9, 9))).replace(b"(9, 9), }          ", b"(1000000, 1000000)}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(np.zeros((9, 9), np.float32))[:200], ""),  # cut off
        (FOUR_TERABYTES, "mmap length is greater than file size"),
        (saved(np.array([[{}]]), allow_pickle=True), "Python objects"),
        (saved(np.zeros((1, 2, 3))), "not a two-dimensional array of finite numbers"),
        (saved(np.array([[np.nan]])), "not a two-dimensional array of finite numbers"),
        (saved(np.zeros((0, 3))), ""),
        (saved(np.array([["a"]])), ""),
    ],
)
def test_damaged_maps_are_refused(content, words, tmp_path):
    (tmp_path / "map.npy").write_bytes(content)
    with pytest.raises(UserError, match=rf"the response map .*map\.npy cannot be read \(.*{words}.*\); export it"):
        read_map(tmp_path, "map")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": np.array([[{}]])}, "allow_pickle=False"),
        ({"scores": np.ones((0, 3))}, "it holds an absurd size, 0 x 3"),
        ({"scores": np.array([[np.inf]])}, "not a two-dimensional array of finite numbers"),
        ({"input_size": (10**5, 10**5)}, "it holds an absurd size, 100000 x 100000"),
        ({"photo_size": (-2, -2)}, "it holds an absurd size, -2 x -2"),
        ({"photo_size": 5}, ""),
    ],
)
def test_damaged_scores_are_refused(changes, words, tmp_path):
    np.savez(tmp_path / "map.npz", **SCORES | changes)
    with pytest.raises(UserError, match=rf"the response map .*map\.npz cannot be read \(.*{words}.*\); export it"):
        read_map(tmp_path, "map")


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


@pytest.mark.parametrize(
    ("names", "images", "words"),
    [
        ({"a": 1}, None, "is not a list of names"),
        (["0_1", "untitled"], None, "is not a list of names"),
        (["0_a"], None, "toy_images.json does not name the photo of every name"),
        (["0_1"], {"1_1": "a.jpg"}, "toy_images.json does not name the photo of every name"),
    ],
)
def test_damaged_lists_of_names_are_refused(names, images, words, tmp_path):
    write_json(tmp_path / "toy_names.json", names)
    if images is not None:
        write_json(tmp_path / "toy_images.json", images)
    with pytest.raises(UserError, match=words):
        read_images(tmp_path / "toy_names.json")


def test_labels_and_masks_are_read_as_written(tmp_path):
    label = np.array([[0, 1, 255], [1, 0, 0]], np.uint8)
    write_label(tmp_path / "ir_label", "0_1", label)
    assert np.array_equal(read_label(tmp_path / "ir_label", "0_1"), label)
    write_mask(tmp_path, "0_1", label > 0)
    assert np.array_equal(read_mask(tmp_path, "0_1", (2, 3)), label > 0)
    with pytest.raises(UserError, match=r"0_1\.png is 2 x 3, its photo 3 x 2; remove it and make it with"):
        read_mask(tmp_path, "0_1", (3, 2))
    with pytest.raises(UserError, match=r"0_2\.png is not there; make it with"):
        read_mask(tmp_path, "0_2")
    (tmp_path / "0_1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0_1\.png cannot be read as a PNG \(.*\); make it with"):
        read_mask(tmp_path, "0_1")
