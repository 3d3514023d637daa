"""The data doctor on the toy world: fine as it is, and with planted faults, each named with its cure."""

import json
import pickle
import shutil

import pytest
from PIL import Image

from dataset import refcoco
from tests.conftest import data_words


def doctor(script, *words):
    status, told, errors = script("validate.py", *words, "--check_data", "full")
    return status, told, errors


def test_a_whole_toy_world_is_fine_in_both_layouts(world, script):
    status, told, _ = doctor(script, *data_words(world))
    assert (status, "WRONG" in told, told.rstrip().endswith("nothing is wrong")) == (0, False, True)
    assert "train: 13 refs, " in told
    assert "test: " in told
    status, told, _ = doctor(script, "--dataset", "referit", "--refer_data_root", world / "referit")
    assert (status, "WRONG" in told) == (0, False)


@pytest.fixture
def spoilt(world, tmp_path):
    """The toy world with a fault of every kind."""
    root = tmp_path / "world"
    shutil.copytree(world, root)
    folder = root / "refer" / "refcocog"
    refs = pickle.loads((folder / "refs(umd).p").read_bytes())
    content = json.loads((folder / "instances.json").read_text())
    content["info"]["description"] = "RefCOCOg"
    train = [ref for ref in refs if ref["split"] == "train"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = {annotation["id"]: annotation for annotation in content["annotations"]}
    width, height = sizes[train[0]["image_id"]]
    annotations[train[0]["ann_id"]]["segmentation"] = {"size": [height, width], "counts": [height * width]}
    annotations[train[1]["ann_id"]]["segmentation"] = [[1, 2]]
    train[2]["sentences"][0]["sent"] = "red " * 40
    train[3]["sentences"][0]["sent"] = ""
    photos = {image["id"]: root / "train2014" / image["file_name"] for image in content["images"]}
    ids = sorted({ref["image_id"] for ref in train})
    photos[ids[0]].unlink()
    photos[ids[1]].write_bytes(photos[ids[1]].read_bytes()[:2000])
    Image.new("RGB", (9, 9)).save(photos[ids[2]])
    (folder / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "instances.json").write_text(json.dumps(content))
    return root


EXPECTED = [
    "WRONG: 1 entries of train cannot be used",
    "has an empty sentence",
    "WRONG: train has 12 refs; the published split has 42,226",
    "photos of train are not there (COCO_train2014_",
    "photos of train cannot be decoded (COCO_train2014_",
    "photos of train have another size than the annotations say (COCO_train2014_",
    "fetch COCO's train2014.zip (13 GB) again",
    "masks of train are empty (refs ",
    "masks of train are damaged (refs ",
    "sentences of train have more than 20 tokens ('red red red",
    "findings are WRONG",
]


def test_every_fault_is_named_at_once(spoilt, script):
    status, told, errors = doctor(script, *data_words(spoilt))
    assert status == 1
    assert [words for words in EXPECTED if words not in told] == []
    assert "Traceback" not in told + errors


def test_your_own_data(tmp_path, script):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    lines = [{"image": "a.jpg", "sentences": ["x"]}, {"image": "b.jpg", "sentences": ["y"]}, {"image": "../c.jpg"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("--dataset", "jsonl", "--refer_data_root", tmp_path)
    status, told, _ = doctor(script, *words)
    assert status == 1
    assert "train.jsonl:3 names the photo '../c.jpg' outside the image folder" in told
    assert "1 of 2 photos of train are not there (b.jpg)" in told
    assert "note: 2 refs of train have no mask" in told
    (tmp_path / "train.jsonl").write_text(json.dumps(lines[0]))
    assert doctor(script, *words)[0] == 0


def test_what_cannot_be_examined_has_status_2(tmp_path, script):
    status, _, errors = doctor(script, "--dataset", "jsonl", "--refer_data_root", tmp_path)
    assert (status, "holds no .jsonl file; write train.jsonl first" in errors) == (2, True)
    for dataset in ("refcoco", "jsonl"):
        status, told, errors = doctor(script, "--dataset", dataset, "--refer_data_root", tmp_path / "nowhere")
        assert (status, told, errors.count("the data folder"), errors.count("\n")) == (2, "", 1, 1)
    status, _, errors = doctor(script, "--dataset", "refcocog", "--refer_data_root", tmp_path)
    assert (status, "refcocog is not split by 'unc'; use --splitBy umd or google" in errors) == (2, True)
    status, told, _ = doctor(script, "--dataset", "refcoco", "--refer_data_root", tmp_path)
    assert (status, told.count("refs(unc).p is not there")) == (1, 4)


def test_a_split_without_any_usable_line_is_told_line_by_line(tmp_path, script):
    (tmp_path / "train.jsonl").write_text('{"image": "../a.jpg"}\n[]')
    status, told, _ = doctor(script, "--dataset", "jsonl", "--refer_data_root", tmp_path)
    assert status == 1
    assert "2 entries of train cannot be used" in told
    assert "train.jsonl:1 names the photo '../a.jpg' outside" in told
    assert "train.jsonl:2 is no object" in told
    assert f"WRONG: without these {tmp_path / 'train.jsonl'} has no usable line" in told


def test_annotations_without_faults_are_parsed_once(world, script, monkeypatch):
    parsed = []
    read = refcoco._read_instances
    monkeypatch.setattr(refcoco, "_read_instances", lambda *words: parsed.append(words) or read(*words))
    assert doctor(script, *data_words(world))[0] == 0
    assert len(parsed) == 1
