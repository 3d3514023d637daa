"""The check of a data set: a whole toy world is fine, and planted faults are each named with what to do."""

import json
import pickle
import shutil

import pytest
from PIL import Image

from toy.layouts import MARKER


@pytest.fixture
def check(script):
    def run(dataset, root, *words):
        words = ("--dataset", dataset, "--splitBy", "umd", "--refer_data_root", root, *words)
        return script("scripts/check_data.py", *words)

    return run


def test_a_toy_world_is_fine_in_both_layouts(world, check):
    status, output, _ = check("refcocog", world, "--full")
    assert (status, "WRONG" in output, output.endswith("nothing is wrong\n")) == (0, False, True)
    assert "train: 13 refs, " in output
    assert "test: " in output
    status, output, _ = check("referit", world / "referit")
    assert (status, "WRONG" in output) == (0, False)


@pytest.fixture
def damaged(world, tmp_path):
    """The toy world with a fault of every kind in its training split, and without its marker."""
    root = shutil.copytree(world, tmp_path / "world")
    folder = root / "refer" / "refcocog"
    (folder / MARKER).unlink()
    refs = pickle.loads((folder / "refs(umd).p").read_bytes())
    content = json.loads((folder / "instances.json").read_text())
    train = [ref for ref in refs if ref["split"] == "train"]
    images = {image["id"]: image for image in content["images"]}
    annotations = {annotation["id"]: annotation for annotation in content["annotations"]}
    height, width = (images[train[0]["image_id"]][side] for side in ("height", "width"))
    annotations[train[0]["ann_id"]]["segmentation"] = {"size": [height, width], "counts": [height * width]}
    annotations[train[1]["ann_id"]]["segmentation"] = [[1, 2]]
    train[2]["sentences"][0]["sent"] = "red " * 40
    next(ref for ref in refs if ref["split"] == "val")["sentences"][0]["sent"] = ""
    ids = sorted({ref["image_id"] for ref in train})[:3]
    first, second, third = (root / "train2014" / images[image_id]["file_name"] for image_id in ids)
    first.unlink()
    second.write_bytes(second.read_bytes()[:2000])
    Image.new("RGB", (9, 9)).save(third)
    (folder / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "instances.json").write_text(json.dumps(content))
    return root


EXPECTED = [
    "note: 1 sentences have more than 20 tokens and are cut, as published; see --max_query_len ('red red red",
    "WRONG: the published split has 42,226 refs; fetch the annotations again",
    "WRONG: 1 photos are not there; fetch the photos with: bash scripts/download_data.sh coco (COCO_train2014_",
    "WRONG: 1 photos cannot be decoded; fetch the photos",
    "WRONG: 1 photos have another size than annotated; fetch the photos",
    "WRONG: 1 masks are empty; correct or remove their refs (",
    "WRONG: 1 masks are damaged; correct or remove their refs (",
    "WRONG: val cannot be read: ",
    "has an empty sentence",
    "lines above are WRONG",
]


def test_every_fault_is_named(damaged, check):
    status, output, errors = check("refcocog", damaged, "--full")
    assert status == 1
    assert [words for words in EXPECTED if words not in output] == []
    assert "Traceback" not in output + errors


def test_your_own_data(tmp_path, check):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    lines = [{"image": name, "sentences": ["x"]} for name in ("a.jpg", "b\n\x1b[2J.jpg")]  # clears the screen
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status, output, _ = check("jsonl", tmp_path)
    assert status == 1
    assert "note: 2 refs have no mask; they can be used for training and export" in output
    assert "WRONG: 1 photos are not there; correct the paths, or put the photos there (b  [2J.jpg)" in output
    (tmp_path / "train.jsonl").write_text(json.dumps(lines[0]))
    assert check("jsonl", tmp_path)[0] == 0
    (tmp_path / "train.jsonl").write_text(json.dumps(lines[0] | {"mask": []}))
    status, output, _ = check("jsonl", tmp_path)
    assert (status, "note: 1 refs name nothing in their photo" in output, "WRONG" in output) == (0, True, False)


def test_pseudo_masks_of_any_maker(tmp_path, check):
    """A good one, an empty one, one turned, one of twice the size, one that is no PNG, and one that is not there."""
    (tmp_path / "masks").mkdir()
    lines = [{"image": f"{number % 2}.png", "sentences": ["x"]} for number in range(6)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "todo.jsonl").write_text(json.dumps(lines[0]))
    for number in range(2):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.png")
    for name, size, value in (("0_0", (8, 6), 255), ("1_1", (8, 6), 0), ("2_0", (6, 8), 255), ("3_1", (16, 12), 255)):
        Image.new("L", size, value).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "masks" / "4_0.png").write_bytes(b"no PNG")
    status, output, _ = check("jsonl", tmp_path, "--pseudo_path", tmp_path / "masks")
    assert status == 1
    for words in (
        "note: 1 pseudo masks are empty, which teaches stage 2 that nothing is there; remove",
        "WRONG: 2 pseudo masks are damaged or have another shape than their photo; make them again (2_0, 4_0)",
        f"WRONG: 1 pseudo masks are not in {tmp_path / 'masks'}; make them, or train stage 2 with --skip_missing (5_1)",
        "2 lines above are WRONG",
    ):
        assert words in output
    (tmp_path / "train.jsonl").unlink()
    status, _, errors = check("jsonl", tmp_path, "--pseudo_path", tmp_path / "masks")
    assert (status, "has no train.jsonl; write it, or leave the flag out" in errors) == (2, True)


def test_photos_that_training_refuses_and_masks_beside_their_photos(tmp_path, check):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 30)).save(tmp_path / "turned.tif", exif=exif)
    Image.new("I;16", (8, 6)).save(tmp_path / "deep.png")
    polygons = [[[0, 0, 9, 0, 9, 3]], [[0, 0, 20, 0, 20, 3]], [[-9, 0, 4, 0, 4, 3]], [[0, 0, 4, 0, 4, 33]]]
    lines = [{"image": "turned.tif", "sentences": ["x"], "mask": mask} for mask in polygons]
    lines.append({"image": "deep.png", "sentences": ["x"]})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    status, output, _ = check("jsonl", tmp_path)
    assert status == 1
    assert "note: 1 photos are stored turned (EXIF orientation) and used as stored; turn their pixels" in output
    assert "WRONG: 1 photos have more than 8 bits per channel; convert them to 8 bits (deep.png)" in output
    assert "WRONG: 3 polygons leave their photo; draw them on the pixels as stored (1, 2, 3)" in output
    (tmp_path / "train.jsonl").write_text(json.dumps(lines[0]))
    assert check("jsonl", tmp_path)[0] == 0


def test_what_cannot_be_checked_has_status_2(tmp_path, check):
    for dataset, root, words in [
        ("jsonl", tmp_path, "holds no data set; see data/README.md and docs/own_data.md"),
        ("refcocog", tmp_path / "nowhere", "holds no data set"),
        ("refcoco", tmp_path, "refcoco is not split by 'umd'; use --splitBy unc"),
    ]:
        status, output, errors = check(dataset, root)
        assert (status, output, words in errors, errors.count("\n")) == (2, "", True, 1)
