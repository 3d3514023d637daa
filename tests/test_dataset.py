"""The readers against the published data (h) and real files. What they refuse: test_bad_input.py."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco

from clip import tokenize
from dataset.datasets import known_splits, load_splits
from dataset.masks import rasterise
from dataset.photos import as_rgb, opened, read_photo, resized, to_input
from dataset.samples import ground_truth
from dataset.unpickle import read_pickle
from tests.golden import REFERENCE, difference, figures
from tests.processes import Started
from utils.errors import UserError

FIGURES = figures("h_dataset")
SPLITS = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train", "val", "test"])
REAL = Path(__file__).parents[2] / "shared/realdata/emma_refcocog_umd_tiny"
REFS, INSTANCES = "refs(umd).p", "instances.json"


def area(reference):
    return rasterise(reference.segmentation, *reference.size).sum()


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
        mask = rasterise(reference.segmentation, *reference.size)
        assert [1, *mask.shape] == FIGURES[f"{key}.mask_shape"].tolist()
        published = np.unpackbits(FIGURES[f"{key}.mask_packed"])[: mask.size].reshape(mask.shape).astype(bool)
        overlapping = (name, index) == ("train", 2)  # two polygons: the published code drops what they share
        assert (mask & ~published).sum() == (2554 if overlapping else 0)
        assert not (published & ~mask).any()


def test_splits_are_matched_as_published(tmp_path):
    folder = shutil.copytree(REFERENCE / "refer_fixture" / "refer", tmp_path / "refer") / "refcocog"
    refs = pickle.loads((folder / REFS).read_bytes())
    for ref, split in zip(refs, ["testA", "testB", "testA", "val"], strict=False):
        ref["split"] = split
    (folder / REFS).write_bytes(pickle.dumps(refs))
    splits = load_splits("refcocog", tmp_path, "umd", ["testA", "testB", "test"])
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
        outlined = annotations[ref["ann_id"]]["area"]  # in subpixels
        assert area(reference) == pytest.approx(outlined, rel=0.05)


def test_byte_order_marks_and_ids_as_text(tmp_path):
    folder = shutil.copytree(REFERENCE / "refer_fixture" / "refer", tmp_path / "refer") / "refcocog"
    content = json.loads((folder / INSTANCES).read_text())
    for entry in content["images"] + content["annotations"]:
        entry["id"] = str(entry["id"])
    (folder / INSTANCES).write_text(json.dumps(content), encoding="utf-8-sig")
    references = load_splits("refcocog", tmp_path, "umd", ["val"])["val"].references
    assert references == SPLITS["val"].references


# --- gRefCOCO, Ref-ZOM, PhraseCut

SQUARE, RUNS = [0, 0, 2, 0, 2, 2, 0, 2], {"size": [6, 8], "counts": [42, 6]}  # 4 pixels, and the last column
BOXES = {1: [0.9, 0, 2.2, 2], 2: [7, 0, 1, 6]}
ANNOTATIONS = [{"id": i, "bbox": BOXES[i], "segmentation": part} for i, part in ((1, [SQUARE]), (2, RUNS))]


def write_refs(folder, name, file_name, refs):
    common = {"image_id": 3, "split": "testA", "sentences": [{"sent": "x"}]}
    refs = [{"ref_id": number, **common, **ref} for number, ref in enumerate(refs)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(json.dumps(refs).encode() if name.endswith("json") else pickle.dumps(refs))
    image = {"id": 3, "file_name": file_name, "height": 6, "width": 8}
    (folder / INSTANCES).write_text(json.dumps({"images": [image], "annotations": ANNOTATIONS}))


REFS_OF_SEVERAL = [
    {"ann_id": [1], "category_id": [4]},
    {"ann_id": [1, 2], "category_id": [4, 5]},
    {"ann_id": [-1], "category_id": [-1]},
]


@pytest.mark.parametrize("name", ["grefs(unc).json", "grefs(unc).p"])
def test_grefcoco_names_none_one_or_several(name, tmp_path):
    write_refs(tmp_path / "refer/grefcoco", name, "COCO_train2014_000000000003.jpg", REFS_OF_SEVERAL)
    references = load_splits("grefcoco", tmp_path, "unc", ["testA"])["testA"].references
    assert [r.absent for r in references] == [False, False, True]
    assert [r.box for r in references] == [(0, 0, 2, 2), (0, 0, 8, 6), None]
    assert [area(r) for r in references[:2]] == [4, 4 + 6]
    assert references[1].category == (4, 5)
    (tmp_path / "refer/grefcoco" / name).unlink()
    with pytest.raises(UserError, match=r"grefs\(unc\).json (is not there|does not exist); fetch the annotations, see"):
        load_splits("grefcoco", tmp_path, "unc", ["testA"])


def test_ref_zom_has_photos_of_both_years_parts_and_zero_is_in_its_source(tmp_path):
    refs = [{"ann_id": [2, 1], "source": "many"}, {"ann_id": 1, "source": "zero"}, {"ann_id": 1, "source": "one"}]
    for part in ("train2014", "val2014"):
        write_refs(tmp_path / "refer/ref-zom", "refs(final).p", f"COCO_{part}_000000000003.jpg", refs)
        split = load_splits("ref-zom", tmp_path, "final", ["test"])["test"]
        assert [r.absent for r in split.references] == [False, True, False]
        assert [area(r) for r in split.present().references] == [10, 4]
        photos = {split.photo_path(reference) for reference in split.references}
        assert photos == {tmp_path / part / f"COCO_{part}_000000000003.jpg"}


@pytest.mark.parametrize("segmentation", [[], None])
def test_an_annotation_without_a_part_is_damaged_not_absent(segmentation, tmp_path):
    write_refs(tmp_path / "refer/grefcoco", "grefs(unc).json", "a.jpg", REFS_OF_SEVERAL)
    file = tmp_path / "refer/grefcoco" / INSTANCES
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = segmentation
    file.write_text(json.dumps(content))
    split = load_splits("grefcoco", tmp_path, "unc", ["testA"])["testA"]
    for reference in split.references[:2]:
        assert not reference.absent
        with pytest.raises(UserError, match="the mask of ref . .* is damaged: a polygon needs"):
            ground_truth(split, reference, (6, 8))


def test_phrasecut_unites_the_polygons_of_all_instances(tmp_path):
    structure = {"name": "cup", "attributes": ["red"], "relation_descriptions": [["on", "table"]]}
    corners = [[0, 0], [2, 0], [2, 2], [0, 2]]
    instances = [[corners, [], [[4, 0], [5, 0], [5, 1], [4, 1]]], [[[6, 4], [8, 4], [8, 6], [6, 6]]]]
    task = {"task_id": "3__0", "image_id": 3, "phrase": "red cup on table", "phrase_structure": structure}
    task |= {"instance_boxes": [[0, 0, 5, 2], [6, 4, 2, 2.5]], "Polygons": instances}
    folder = tmp_path / "phrasecut"
    folder.mkdir()
    (folder / "image_data_split.json").write_text(
        json.dumps([{"image_id": 3, "height": 6, "width": 8, "split": "val"}])
    )
    (folder / "refer_miniv.json").write_text(json.dumps([task]))
    split = load_splits("phrasecut", tmp_path, "-", ["miniv"])["miniv"]
    (reference,) = split.references
    assert (split.photo_path(reference), reference.name) == (folder / "images" / "3.jpg", "0_3")
    assert (reference.ref_id, reference.sentences, reference.box) == ("3__0", ("red cup on table",), (0, 0, 8, 6.5))
    assert (reference.category, reference.attributes, area(reference)) == ("cup", ("red",), 4 + 1 + 4)
    polygons = ([[0, 0, 0]], [[10**400, 0]], [0, [0, 0]], 5)
    damages = [{"image_id": 4}, {"instance_boxes": []}, {"phrase": ""}, *({"Polygons": [[p]]} for p in polygons)]
    for damage in damages:
        (folder / "refer_miniv.json").write_text(json.dumps([task, task | damage]))
        with pytest.raises(UserError, match=r"refer_miniv.json: phrase 2\b"):
            load_splits("phrasecut", tmp_path, "-", ["miniv"])


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
        key = f"referit.test.{image}.{reference.ref_id.split('_')[1]}"
        assert reference.sentences == (str(FIGURES[f"{key}.sentence"]),)
        assert reference.box == pytest.approx(FIGURES[f"{key}.bbox"][0].tolist())
        total, largest = FIGURES[f"{key}.mask_sum_max"]
        assert area(reference) == total if largest == 1 else area(reference) < total


def test_referit_evaluates_only_large_refs(tmp_path):
    def annotation(height, query):  # whose box covers 10 x `height` of 1,000 pixels
        return {"query": query, "bbox": [[0, 0, 10, height]], "segmentation": [{"size": [20, 50], "counts": "0"}]}

    content = {"1": {"annotations": [annotation(4, "a"), annotation(6, ["a", "b"]), annotation(7, "c")]}}
    (tmp_path / "annotations").mkdir()
    for split in ("train", "test"):
        (tmp_path / "annotations" / f"{split}.pickle").write_bytes(pickle.dumps(content, protocol=2))
    train, test = load_splits("referit", tmp_path, "-", ["train", "test"]).values()
    assert len(train.references) == 3
    refs = [(r.index, r.name, r.photo, r.box[3], r.sentences) for r in test.references]
    assert refs == [(0, "0_1", "1.jpg", 6, ("a", "b")), (1, "1_1", "1.jpg", 7, ("c",))]


# --- Your own data


def test_your_own_data(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.pad(np.full((2, 3), 255, np.uint8), ((1, 3), (4, 1)))).save(tmp_path / "masks" / "m.png")
    polygon = {"mask": [[0, 0, 4, 0, 4, 3, 0, 3]], "bbox": [0, 0, 4, 3]}
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    photo = {"image": "a.jpg", "sentences": ["one", "two"]}
    lines = [json.dumps(photo | masks) for masks in ({}, {"mask": "masks/m.png"}, polygon, {"mask": []})]
    (tmp_path / "train.jsonl").write_text("\n\n".join(lines))
    split = load_splits("jsonl", tmp_path, "unc", ["train"])["train"]
    assert split.photo_path(split.references[0]) == tmp_path / "a.jpg"
    assert [r.name for r in split.references] == ["0_0", "1_0", "2_0", "3_0"]
    assert [r.size for r in split.references] == [None, (6, 8), (6, 8), (6, 8)]
    assert [r.box for r in split.references] == [None, (4, 1, 7, 3), (0, 0, 4, 3), None]
    assert [area(r) for r in split.references[1:3]] == [6, 12]
    assert [r.absent for r in split.references] == [False, False, False, True]
    assert not ground_truth(split, split.references[3], (6, 8)).any()


def test_a_photo_has_one_name_however_its_path_is_written(tmp_path):
    paths = ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "a/./b.jpg"]
    lines = [json.dumps({"image": path, "sentences": ["one"]}) for path in paths]
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    references = load_splits("jsonl", tmp_path, "unc", ["train"])["train"].references
    assert {(r.photo, r.image_id) for r in references} == {("a/b.jpg", 0)}


# --- Masks


def test_the_foreground_of_a_picture_is_not_0(tmp_path):
    def read(image):
        image.save(tmp_path / "m.png")
        return rasterise(tmp_path / "m.png", 1, 3).tolist()

    indices = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    indices.putpalette([255, 255, 255, 0, 0, 0, 0, 0, 1])  # white, black, nearly black
    colours = np.array([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]], np.uint8)
    pictures = [np.array([[0, 1, 256]], np.uint16), np.array([[0, 1, 255]], np.uint8), np.array([[False, True, True]])]
    for picture in (indices, *map(Image.fromarray, (colours, *pictures))):
        assert read(picture) == [[False, True, True]]
    for grey, alpha in [
        ([255, 255, 255], [0, 9, 255]),  # the shape is in alpha
        ([0, 0, 0], [0, 9, 255]),
        ([0, 1, 255], [255, 255, 255]),  # alpha says nothing
        ([0, 1, 255], [0, 0, 0]),
        ([9, 1, 255], [0, 255, 255]),  # what is transparent is no foreground, nor what is black
    ]:
        channels = [Image.fromarray(np.array([values], np.uint8)) for values in (grey, alpha)]
        assert read(Image.merge("LA", channels)) == [[False, True, True]]
        assert read(Image.merge("RGBA", [channels[0]] * 3 + channels[1:])) == [[False, True, True]]
        palette = Image.fromarray(np.array([[2, 0, 1]], np.uint8), mode="P")
        palette.putpalette([value for place in (1, 2, 0) for value in [grey[place]] * 3])
        palette.info["transparency"] = bytes(alpha[place] for place in (1, 2, 0))
        if min(alpha) < max(alpha):  # else its indices count
            assert read(palette) == [[False, True, True]]
    with pytest.raises(ValueError, match="all of it is black or transparent; save its shape in white on black"):
        read(Image.merge("LA", [Image.fromarray(np.array([row], np.uint8)) for row in ([9, 0, 0], [0, 9, 9])]))


def test_run_lengths_are_decoded():
    noise = np.random.default_rng(0).random((37, 53)) > 0.5
    large = np.pad(np.ones((1000, 2000), bool), 500)  # runs of several characters
    for mask in (noise, large):
        runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert (rasterise(runs, *mask.shape) == mask).all()
        assert (rasterise([runs | {"counts": runs["counts"].decode()}], *mask.shape) == mask).all()
    assert rasterise({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist() == [[False, True], [True, False]]


def test_polygons_of_fewer_than_three_points_are_left_out():
    square = [1, 1, 4, 1, 4, 4, 1, 4]
    whole = rasterise([square], 6, 8)
    assert (rasterise([[5, 5, 7, 5], square, [2, 2], []], 6, 8) == whole).all()
    for wrong in (square, [[5, 5, 7, 5]], [square[:2], square[2:4], square[4:6]], []):  # flat; a list of points
        with pytest.raises(ValueError, match=r"three points; write polygons as \[\[x, y, x, y, x, y, ...\], ...\]"):
            rasterise(wrong, 6, 8)


def test_runs_of_no_pixel_and_parts_of_both_kinds_are_united():
    """pycocotools' union of runs of no pixel writes past its memory."""
    nothing, all_but_two = {"size": [6, 8], "counts": [48]}, {"size": [6, 8], "counts": [2, 0, 0, 46]}
    assert rasterise([all_but_two, all_but_two], 6, 8).sum() == 46
    assert rasterise([{"size": [6, 8], "counts": [0] * 100_001 + [48]}, nothing], 6, 8).all()
    last_column = {"size": [2, 3], "counts": [4, 2]}
    assert rasterise([last_column, [0, 0, 1, 0, 1, 2, 0, 2]], 2, 3).tolist() == [[True, False, True]] * 2


# --- Pickles and photos


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


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_photos_of_any_mode_become_rgb(tmp_path, mode):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(file)
    photo = read_photo(file)
    assert photo.mode == "RGB"
    assert to_input(resized(photo, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_photos_for_people_are_upright_those_of_data_sets_as_stored(ending, turned, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turned
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16, 0] = pixels[:16, 32:, 1] = 255  # the corners differ
    stored = Image.fromarray(pixels)
    stored.save(tmp_path / "plain.png", exif=exif)
    stored.save(file := tmp_path / f"a.{ending}", exif=exif, quality=100, lossless=True)
    with Image.open(tmp_path / "plain.png") as plain:
        upright = ImageOps.exif_transpose(plain)
    for photo, expected in ((read_photo(file), stored), (read_photo(file, upright=True), upright)):
        assert np.abs(np.asarray(photo, int) - np.asarray(expected, int)).mean() < 2  # JPEG is not exact
    with opened(file) as picture:
        assert picture.size == stored.size


def test_oddities_of_pictures_are_neither_repeated_nor_refused(tmp_path):
    photo, directory = Image.new("RGB", (5, 4)), b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"
    for name, exif in (("cut.jpg", directory), ("none.jpg", b"Exif\0\0nonsense")):
        photo.save(tmp_path / name, exif=exif)
    photo.convert("P").save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    code = (
        f"from dataset.photos import read_photo; [read_photo(file, True) for file in {[*map(str, tmp_path.iterdir())]}]"
    )
    (tmp_path / "script.py").write_text(code)
    process = Started([tmp_path / "script.py"])
    assert (process.communicate(timeout=100), process.returncode) == (("", ""), 0)


def test_photos_in_memory():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    with_alpha = np.dstack([pixels, pixels[:, :, 0]])
    for photo in (pixels, pixels[:, ::-1][:, ::-1], with_alpha, Image.fromarray(with_alpha)):
        assert (np.asarray(as_rgb(photo)) == pixels).all()
    assert (np.asarray(as_rgb(pixels[:, :, 0])) == pixels[:, :, :1]).all()


# --- The table


def test_the_splits_are_those_of_the_table():
    assert known_splits("refcocog", "umd") == {"train": 42_226, "val": 2_573, "test": 5_023}
    assert list(known_splits("referit", "unc")) == ["train", "test"]  # the default of --splitBy makes no difference
    with pytest.raises(UserError, match="refcocog is not split by 'unc'; use --splitBy umd or google"):
        known_splits("refcocog", "unc")
    with pytest.raises(UserError, match="no data set 'coco'; choose one of refcoco, "):
        known_splits("coco", "unc")
