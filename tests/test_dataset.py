"""The readers against the published data (h) and real files, and what they refuse."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from clip import tokenize
from dataset.datasets import DATA_SETS, known_splits, load_splits
from dataset.masks import rasterise
from dataset.photos import read_photo, resized, to_input
from dataset.samples import ground_truth
from dataset.unpickle import read_pickle
from tests.golden import REFERENCE, difference, figures
from utils.errors import UserError

FIGURES = figures("h_dataset")
SPLITS = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train", "val", "test"])
REAL = Path(__file__).parents[2] / "shared/realdata/emma_refcocog_umd_tiny"
REFS, INSTANCES = "refs(umd).p", "instances.json"


# --- RefCOCO, RefCOCO+, RefCOCOg


@pytest.mark.parametrize("name", SPLITS)
def test_refs_images_masks_and_boxes_are_as_published(name):
    split = SPLITS[name]
    assert [r.ref_id for r in split.references] == FIGURES[f"{name}.ref_ids"].tolist()
    assert [r.image_id for r in split.references] == FIGURES[f"{name}.img_ids"].tolist()
    assert ["\n".join(r.sentences) for r in split.references] == FIGURES[f"{name}.sentences"].tolist()
    for index, reference in enumerate(split.references):
        assert reference.index == index
        key = f"{name}.eval.{index}"
        image = to_input(resized(read_photo(split.photo_path(reference)), 320))
        assert difference(image, FIGURES, f"{key}.img") < 1e-5
        assert reference.box == tuple(FIGURES[f"{key}.boxes"].tolist())
        mask = rasterise(reference.segmentation, reference.height, reference.width)
        assert [1, *mask.shape] == FIGURES[f"{key}.mask_shape"].tolist()
        published = np.unpackbits(FIGURES[f"{key}.mask_packed"])[: mask.size].reshape(mask.shape).astype(bool)
        overlapping = (name, index) == ("train", 2)  # two polygons: the published code drops what they share
        assert (mask & ~published).sum() == (2554 if overlapping else 0)
        assert not (published & ~mask).any()


@pytest.fixture
def changed(tmp_path):
    """The fixture's folder, after functions have changed its refs or its images and annotations."""

    def change(refs=None, instances=None):
        root = shutil.copytree(REFERENCE / "refer_fixture", tmp_path / "changed")
        for name, spelling, function in ((REFS, pickle, refs), (INSTANCES, json, instances)):
            if function:
                file = root / "refer" / "refcocog" / name
                content = spelling.loads(file.read_bytes())
                function(content)
                with file.open("wb" if spelling is pickle else "w") as opened:
                    spelling.dump(content, opened)
        return root

    return change


def test_splits_are_matched_as_published(changed):
    def mark(refs):
        for ref, split in zip(refs, ["testA", "testB", "testA", "val"], strict=False):
            ref["split"] = split

    splits = load_splits("refcocog", changed(refs=mark), "umd", ["testA", "testB", "test"])
    assert [len(splits[name].references) for name in ("testA", "testB")] == [2, 1]
    assert len(splits["test"].references) == 3 + 2  # every split that contains the word


@pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not there")
def test_real_annotations(tmp_path):
    shutil.copytree(REAL, tmp_path / "refer" / "refcocog")
    refs = {ref["ref_id"]: ref for ref in pickle.loads((REAL / REFS).read_bytes())}
    splits = load_splits("refcocog", tmp_path, "umd", ["train", "val", "test"])
    assert [len(split.references) for split in splits.values()] == [5, 5, 5]
    references = [reference for split in splits.values() for reference in split.references]
    assert sum(len(reference.sentences) for reference in references) == 28
    annotations = {a["id"]: a for a in json.loads((REAL / INSTANCES).read_text())["annotations"]}
    for reference in references:
        ref = refs[reference.ref_id]
        assert (reference.image_id, reference.category) == (ref["image_id"], ref["category_id"])
        area = rasterise(reference.segmentation, reference.height, reference.width).sum()
        assert area == pytest.approx(annotations[ref["ann_id"]]["area"], rel=0.05)  # of the outline, in subpixels


def test_absent_files_and_unknown_splits_are_named(changed):
    root = changed()
    for dataset, folder, split_by, split, words in [
        ("refcocog", root, "umd", "testC", r"refs\(umd\)\.p has no split 'testC'; it has test, train, val"),
        ("refcocog", root, "google", "val", r"refs\(google\)\.p is not there; fetch the annotations"),
        ("refcoco", root, "umd", "val", "refcoco is not split by 'umd'; use --splitBy unc"),
        ("refcoco", root / "nowhere", "unc", "val", "the data folder .*nowhere is not there"),
        ("coco", root, "unc", "val", r"no data set 'coco'; choose one of refcoco, refcoco\+, refcocog, referit, jsonl"),
    ]:
        with pytest.raises(UserError, match=words):
            load_splits(dataset, folder, split_by, [split])
    for content, words in [("{", "is not a COCO annotation file"), ('{"images": []}', "no 'annotations'")]:
        (root / "refer" / "refcocog" / INSTANCES).write_text(content)
        with pytest.raises(UserError, match=words):
            load_splits("refcocog", root, "umd", ["val"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ref: ref.update(split=5), r"refs\(umd\)\.p is not a list of refs"),
        (lambda ref: ref.pop("split"), r"refs\(umd\)\.p is not a list of refs \(no 'split'\)"),
        (lambda ref: ref.pop("sentences"), r"ref 467 or its annotation is damaged \(no 'sentences'\)"),
        (lambda ref: ref.update(sentences=[]), "ref 467 has no list of sentences"),
        (lambda ref: ref["sentences"][0].update(sent=" "), "ref 467 has an empty sentence"),
        (lambda ref: ref["sentences"][0].update(sent=5), r"ref 467 has a sentence that is not text \(5\)"),
        (lambda ref: ref.update(image_id=77), "ref 467 names image 77, which is not in instances.json"),
        (lambda ref: ref.update(ann_id=77), "ref 467 names annotation 77, which"),
    ],
)
def test_damaged_refs_are_named(change, words, changed):
    with pytest.raises(UserError, match=words):
        load_splits("refcocog", changed(refs=lambda refs: change(refs[0])), "umd", ["train", "val", "test"])


def test_damaged_images_and_masks_are_named(changed, tmp_path):
    for values, words in (({"height": None}, "damaged .*NoneType"), ({"file_name": ""}, "names no photo")):
        root = changed(instances=lambda content, values=values: [image.update(values) for image in content["images"]])
        with pytest.raises(UserError, match=words):
            load_splits("refcocog", root, "umd", ["val"])
        shutil.rmtree(root)
    Image.new("L", (8, 6), 255).save(tmp_path / "m.png")  # a path in instances.json is not opened
    path = str(tmp_path / "m.png")
    root = changed(instances=lambda content: [a.update(segmentation=path) for a in content["annotations"]])
    split = load_splits("refcocog", root, "umd", ["val"])["val"]
    with pytest.raises(
        UserError, match=r"the mask of ref \d+ \(.*\.jpg\) is damaged: .*convert.*; correct or remove it"
    ):
        ground_truth(split, split.references[0], (6, 8))


# --- ReferIt


def test_referit_is_as_published():
    splits = load_splits("referit", REFERENCE / "referit_fixture", "-", ["train", "test"])
    train, test = (splits[name].references for name in ("train", "test"))
    assert len(train) == FIGURES["referit.train.len"]
    for index, reference in enumerate(train):
        assert (tokenize(reference.sentences)[0].numpy() == FIGURES[f"referit.train.{index}.word_ids"]).all()
    assert list(dict.fromkeys(r.image_id for r in test)) == FIGURES["referit.test.files"].tolist()
    for reference in test:
        image = FIGURES["referit.test.files"].tolist().index(reference.image_id)
        key = f"referit.test.{image}.{str(reference.ref_id).split('_')[1]}"
        assert reference.sentences == (str(FIGURES[f"{key}.sentence"]),)
        assert reference.box == pytest.approx(FIGURES[f"{key}.bbox"][0].tolist())
        mask = rasterise(reference.segmentation, reference.height, reference.width)
        total, largest = FIGURES[f"{key}.mask_sum_max"]
        assert mask.sum() == total if largest == 1 else mask.sum() < total


def referit(folder, content, split="test"):
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{split}.pickle").write_bytes(pickle.dumps(content, protocol=2))
    return load_splits("referit", folder, "-", [split])[split].references


def referit_annotation(height, **values):
    """One whose box covers 10 x `height` of 1,000 pixels."""
    size = {"size": [20, 50], "counts": "0"}
    return {"query": ["a", "b"], "bbox": [[0, 0, 10, height]], "segmentation": [size]} | values


def test_referit_evaluates_only_large_refs(tmp_path):
    content = {"1": {"annotations": [referit_annotation(4), referit_annotation(6), referit_annotation(7, query="c")]}}
    assert len(referit(tmp_path, content, "train")) == 3
    test = referit(tmp_path, content, "test")
    assert [(r.index, r.name, r.photo, r.box[3]) for r in test] == [(0, "0_1", "1.jpg", 6), (1, "1_1", "1.jpg", 7)]
    assert [r.sentences for r in test] == [("a", "b"), ("c",)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "test.pickle is not a dictionary of images"),
        ({}, "test.pickle has no ref"),
        ({"2": {}}, r"image '2' is damaged \(no 'annotations'\)"),
        ({"2": {"annotations": [referit_annotation(6, bbox=[[1, 2]])]}}, "image '2' is damaged"),
        ({"2": {"annotations": [referit_annotation(6, query="")]}}, "image '2' has an empty sentence"),
    ],
)
def test_damaged_referit_is_named(content, words, tmp_path):
    with pytest.raises(UserError, match=words):
        referit(tmp_path, content)


# --- Your own data


PHOTO = {"image": "a.jpg", "sentences": ["one", "two"]}


def jsonl(folder, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "train.jsonl").write_text(text)
    Image.new("RGB", (8, 6)).save(folder / "a.jpg")
    return load_splits("jsonl", folder, "unc", ["train"])["train"]


def test_your_own_data(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.pad(np.full((2, 3), 255, np.uint8), ((1, 3), (4, 1)))).save(tmp_path / "masks" / "m.png")
    polygon = {"mask": [[0, 0, 4, 0, 4, 3, 0, 3]], "bbox": [0, 0, 4, 3]}
    split = jsonl(tmp_path, PHOTO, PHOTO | {"mask": "masks/m.png"}, "", PHOTO | polygon)  # and a blank line
    assert split.photo_path(split.references[0]) == tmp_path / "a.jpg"
    assert [r.name for r in split.references] == ["0_0", "1_0", "2_0"]
    assert [(r.height, r.width) for r in split.references] == [(None, None), (6, 8), (6, 8)]
    assert [r.box for r in split.references] == [None, (4, 1, 7, 3), (0, 0, 4, 3)]
    assert [rasterise(r.segmentation, 6, 8).sum() for r in split.references[1:]] == [6, 12]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "train.jsonl:2 is not a JSON object"),
        ("[" * 100_000, "train.jsonl:2 is not a JSON object"),
        ([], "train.jsonl:2 is not a JSON object"),
        ({"sentences": ["a"]}, "train.jsonl:2 names no photo"),
        ({"image": "a.jpg"}, "train.jsonl:2 has no list of sentences"),
        ({"image": "a.jpg", "sentences": [""]}, "train.jsonl:2 has an empty sentence"),
        (PHOTO | {"mask": "m.png"}, r"train.jsonl:2 has a photo, mask .*m.png cannot be used \(it is not there"),
        (PHOTO | {"mask": "a.jpg"}, r"a.jpg cannot be used \(cannot identify image"),
        (PHOTO | {"image": "b.jpg", "mask": "m.png"}, r"train.jsonl:2 has a photo, .* \(it is not there\)"),
        (PHOTO | {"mask": {"size": [6, 8], "counts": [48]}}, "the mask is empty"),
        (PHOTO | {"mask": [[0, 0, 4, 0, 4, 3]], "bbox": [1]}, "train.jsonl:2 has a photo, mask or bbox"),
    ],
)
def test_lines_that_cannot_be_used_are_named(line, words, tmp_path):
    with pytest.raises(UserError, match=words):
        jsonl(tmp_path, PHOTO, line)


def test_absent_and_empty_files_are_named(tmp_path):
    with pytest.raises(UserError, match="train.jsonl is empty; a line is"):
        jsonl(tmp_path, "")
    with pytest.raises(UserError, match="val.jsonl is not there; write it, or choose another split"):
        load_splits("jsonl", tmp_path, "-", ["val"])


# --- Masks


def test_the_foreground_of_a_picture_is_not_0(tmp_path):
    def read(image):
        image.save(tmp_path / "m.png")
        return rasterise(tmp_path / "m.png", 1, 3).tolist()

    indices = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    indices.putpalette([255, 255, 255, 0, 0, 0, 0, 0, 1])  # white, black, nearly black
    colours = np.array([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]], np.uint8)
    grey_and_alpha = np.array([[[0, 255], [1, 255], [9, 0]]], np.uint8)
    pictures = [np.array([[0, 1, 256]], np.uint16), np.array([[0, 1, 255]], np.uint8), np.array([[False, True, True]])]
    for picture in (indices, *map(Image.fromarray, (colours, grey_and_alpha, *pictures))):
        assert read(picture) == [[False, True, True]]


def test_run_lengths_are_decoded():
    noise = np.random.default_rng(0).random((37, 53)) > 0.5
    large = np.pad(np.ones((1000, 2000), bool), 500)  # runs of several characters
    for mask in (noise, large):
        runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert (rasterise(runs, *mask.shape) == mask).all()
        assert (rasterise([runs | {"counts": runs["counts"].decode()}], *mask.shape) == mask).all()
    assert rasterise({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist() == [[False, True], [True, False]]


def test_runs_of_no_pixel_and_parts_of_both_kinds_are_united():
    """pycocotools' union of runs of no pixel writes past its memory."""
    nothing, all_but_two = {"size": [6, 8], "counts": [48]}, {"size": [6, 8], "counts": [2, 0, 0, 46]}
    assert rasterise([all_but_two, all_but_two], 6, 8).sum() == 46
    assert rasterise([{"size": [6, 8], "counts": [0] * 100_001 + [48]}, nothing], 6, 8).all()
    last_column = {"size": [2, 3], "counts": [4, 2]}
    assert rasterise([last_column, [0, 0, 1, 0, 1, 2, 0, 2]], 2, 3).tolist() == [[True, False, True]] * 2


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "it has no part"),
        ([[0, 0, 1, 1]], "at least three points"),
        ([[0, 0, 4, 0, 4, float("nan")]], "not finite"),
        ([[0, 0, 4, 0, 4, 1e300]], "far outside"),
        ([[0, 0, 1e5, 1e5] * 10], "far outside"),  # pycocotools would allocate for every pixel of the outline
        ({"size": [8, 6], "counts": [48]}, r"for size \[8, 6\], the photo is \[6, 8\]"),
        ({"size": [6, 8], "counts": [40]}, "not those of a mask"),
        ({"size": [6, 8], "counts": [50, -2]}, "not those of a mask"),
        ({"size": [6, 8], "counts": [2**62, 2**62]}, "not those of a mask"),
        ({"size": [6, 8], "counts": "0"}, "not those of a mask"),
        ({"size": [6, 8], "counts": "0`"}, "not those of a mask"),  # ends within a run
        ({"size": [6, 8], "counts": "\x7f"}, "not in COCO's format"),
        ({"size": [6, 8], "counts": "o" * 1_000_000}, "not in COCO's format"),
        ({"size": [6, 8], "counts": "Ié"}, "ascii"),
    ],
)
def test_damaged_masks_are_refused(segmentation, words):
    with pytest.raises(ValueError, match=words):
        rasterise(segmentation, 6, 8)
    with pytest.raises(ValueError, match="1000000 x 1000000 pixels"):
        rasterise(segmentation, 10**6, 10**6)


# --- Pickles


def test_a_pickle_leaves_no_trace_in_the_reader(tmp_path):
    """BUILD sets attributes of whatever it is given, here the defaults of the function that encodes."""
    file = tmp_path / "refs.p"
    file.write_bytes(b"c_codecs\nencode\n(N}S'__defaults__'\n(S'latin1'\ntstbN.")
    read_pickle(file, "")
    file.write_bytes(b"c_codecs\nencode\n(Vabc\ntR.")
    with pytest.raises(UserError, match="missing 1 required positional argument"):
        read_pickle(file, "")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_any_protocol_are_read(protocol, tmp_path):
    value = [{"a": (1, -(2**70), 2.5, None, True), "b": [{3, 4}], "é": b"\x00\xff"}]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "refs.p", "") == value


# --- Photos


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_photos_of_any_mode_become_rgb(tmp_path, mode):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(file)
    photo = read_photo(file)
    assert photo.mode == "RGB"
    assert to_input(resized(photo, 8)).shape == (3, 8, 8)


def test_photos_for_people_are_upright_those_of_data_sets_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_photo(tmp_path / "a.jpg").size == (5, 4)
    assert read_photo(tmp_path / "a.jpg", upright=True).size == (4, 5)


# --- The table


def test_the_photos_are_where_the_table_says(world):
    for name, split_by, root in (("refcocog", "umd", world), ("referit", "-", world / "referit")):
        split = load_splits(name, root, split_by, ["train"])["train"]
        assert split.image_root == root / DATA_SETS[name].photos
        assert (split.dataset, split.photo_path(split.references[0]).is_file()) == (name, True)


def test_the_splits_are_those_of_the_table():
    assert known_splits("refcocog", "umd") == {"train": 42_226, "val": 2_573, "test": 5_023}
    assert list(known_splits("referit", "unc")) == ["train", "test"]  # the default of --splitBy makes no difference
    with pytest.raises(UserError, match="refcocog is not split by 'unc'; use --splitBy umd or google"):
        known_splits("refcocog", "unc")
