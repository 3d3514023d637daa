"""Masks of many photos: known ones in a COCO file, the same file however a run goes, and what is wrong in one line."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from torch import nn

from dataset.artifacts import read_mask
from dataset.jsonl import read_jsonl
from dataset.predictions import join_parts
from dataset.samples import EvalPhotos, eval_loader
from model.build import Architecture, build_network, network_content
from model.prediction import predict
from model.segmenter import Segmenter, load_model
from tests.processes import Started, run_processes
from utils.checkpoint import save_checkpoint
from utils.maps import Responses

CHINESE, EMOJI_HALF = "左边的红色方块", "red \ud83d"


class Redness(nn.Module):
    """A stand-in for a network of stage 2: the logit is 2 where a photo is red, else -2."""

    stage, mask_threshold = 2, 0.0

    def respond(self, images, tokens, photo):
        logits = torch.where(images[photo, :1] > images[photo, 1:2] + 1, 2.0, -2.0)
        return Responses(logits, logits)


def write_photo(path, box=None, size=(48, 32)):
    """A grey photo of width, height, red in a box of x1, y1, x2, y2."""
    photo = Image.new("RGB", size, (128, 128, 128))
    if box:
        photo.paste((255, 0, 0), box)
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)


def write_lines(file, *lines):
    file.write_text("\n".join(json.dumps({"image": name, "sentences": texts}) for name, *texts in lines))
    return file


@pytest.fixture
def todo(tmp_path):
    """Two photos, one of them named by two lines that are not neighbours."""
    write_photo(tmp_path / "a b" / "ü'.PNG", (8, 4, 24, 12))
    write_photo(tmp_path / "empty.png")
    odd = "a b/ü'.PNG"
    return write_lines(tmp_path / "todo.jsonl", (odd, CHINESE, EMOJI_HALF), ("empty.png", "x"), (odd, "again"))


def predicted(todo, keep_empty):
    """The COCO file of the stand-in, and the folder of its PNGs."""
    photos = EvalPhotos(read_jsonl(todo), 32, 20, masks=False, faults=True)
    parts, output = todo.with_name("parts"), todo.with_name("masks.json")
    predict(Segmenter(Redness(), 32), eval_loader(photos, 2, 0), parts, todo.with_name("pngs"), keep_empty)
    join_parts(parts, output)
    return output, todo.with_name("pngs")


def test_known_masks_in_a_file_that_pycocotools_reads(todo):
    file, pngs = predicted(todo, keep_empty=True)
    coco = COCO(file)
    assert [(i["id"], i["file_name"], i["width"], i["height"]) for i in coco.dataset["images"]] == [
        (0, "a b/ü'.PNG", 48, 32),
        (1, "empty.png", 48, 32),
    ]
    assert coco.dataset["categories"] == [{"id": 1, "name": "object"}]
    annotations = coco.dataset["annotations"]
    assert [(a["id"], a["image_id"], a["sentence"], a["ref"]) for a in annotations] == [
        (1, 0, CHINESE, 0),
        (2, 0, "red \ufffd", 0),
        (3, 0, "again", 2),
        (4, 1, "x", 1),
    ]
    assert {(a["category_id"], a["iscrowd"]) for a in annotations} == {(1, 0)}
    red = np.zeros((32, 48), bool)
    red[4:12, 8:24] = True
    for annotation in annotations[:3]:
        mask = coco.annToMask(annotation)
        assert (mask != red).sum() < 0.2 * red.sum()  # the photo is seen at 32 x 32 pixels
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == run_lengths.toBbox(annotation["segmentation"]).tolist()
        assert 0.7 < annotation["score"] < 1 / (1 + np.exp(-2))  # the mean of sigmoids from 0.5 to that of the logit 2
    assert (annotations[3]["area"], annotations[3]["bbox"], annotations[3]["score"]) == (0, [0, 0, 0, 0], 0)
    assert not coco.annToMask(annotations[3]).any()
    assert [a["peak"] for a in annotations] == [2, 2, 2, -2]
    names = ["0_0", "0_0_2", "2_0", "1_1"]
    assert {file.stem for file in pngs.iterdir()} == set(names)
    for name, annotation in zip(names, annotations, strict=True):
        assert (read_mask(pngs, name, (32, 48)) == coco.annToMask(annotation)).all()


def test_empty_masks_are_dropped_and_the_others_keep_their_ids(todo):
    file, _ = predicted(todo, keep_empty=False)
    content = json.loads(file.read_text())
    assert len(content["images"]) == 2
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3]


def test_an_encoded_photo_gives_the_same_for_all_its_sentences(checkpoints, tmp_path):
    write_photo(tmp_path / "a.png", (8, 4, 24, 12))
    for stage in (1, 2):
        segmenter = load_model(checkpoints / f"{stage}.pth")
        encoded, calls = segmenter.encode(tmp_path / "a.png"), []
        expected = segmenter.respond(tmp_path / "a.png", ["x", "a red thing"])
        segmenter.network.backbone.visual.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        segmenter.network.backbone.visual.layer4.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        assert np.array_equal(segmenter.respond(encoded, ["x", "a red thing"]), expected)
        assert segmenter.respond(encoded, []).shape == (0, 32, 48)
        assert not calls
        segmenter.respond(tmp_path / "a.png", ["x"])
        assert calls


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small random networks of both stages, `1.pth` and `2.pth`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for stage in (1, 2):
        network = build_network(stage, Architecture("toy", 16, input_size=64), pretrained=False)
        save_checkpoint(folder / f"{stage}.pth", network_content(network))
    return folder


@pytest.fixture
def many(tmp_path):
    """A folder with ten different photos, each with one or two sentences in `todo.jsonl`."""
    for number in range(10):
        write_photo(tmp_path / f"{number}.png", (number, 2, 20 + number, 9 + number), (48 + number, 32))
    texts = (("red", "the red one"), ("grey",))
    write_lines(tmp_path / "todo.jsonl", *((f"{number}.png", *texts[number % 2]) for number in range(10)))
    return tmp_path


def words(many, checkpoints, name, *more):
    files = ["--sentences", many / "todo.jsonl", "--pretrain", checkpoints / "2.pth", "--output", many / f"{name}.json"]
    return ["predict.py", *files, "--batch_size", "3", *more]


def test_processes_loaders_and_a_kill_change_no_byte(many, checkpoints, script):
    with (many / "todo.jsonl").open("a") as file:  # a last batch that takes its time
        file.write("\n" + json.dumps({"image": "9.png", "sentences": [f"number {n}" for n in range(300)]}))
    assert script(*words(many, checkpoints, "one", "--num_workers", "0"))[0] == 0
    expected = (many / "one.json").read_bytes()
    assert len(json.loads(expected)["annotations"]) == 315
    assert {file.name for file in many.glob("one*")} == {"one.json", "one.png"}
    run_processes(*words(many, checkpoints, "two", "--num_workers", "1"))
    assert (many / "two.json").read_bytes() == expected
    command, parts = words(many, checkpoints, "killed", "--num_workers", "0"), many / "killed.json.parts"
    process = Started(command)
    while not (kept := list(parts.glob("0*.jsonl"))) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=60)
    assert 1 <= len(kept) < 4
    assert not (many / "killed.json").exists()
    assert script(*command, "--resume")[0] == 0
    assert (many / "killed.json").read_bytes() == expected


def test_photos_that_cannot_be_read_are_named_and_tried_again(many, checkpoints, script):
    run = words(many, checkpoints, "masks", "--num_workers", "2")
    assert script(*run)[0] == 0
    whole, good = (many / "masks.json").read_bytes(), {name: (many / name).read_bytes() for name in ("4.png", "9.png")}
    (many / "4.png").write_bytes(good["4.png"][:60])
    (many / "9.png").unlink()
    status, output, errors = script(*run)
    assert (status, errors.count("\n")) == (2, 3)
    for name in good:
        assert f"skipped: the photo {many / name} " in errors
    assert "2 of 10 photos were skipped, see above; correct them, and run the same command with --resume" in errors
    assert "12 masks of 8 photos" in output
    for name, content in good.items():
        assert name not in (many / "masks.json").read_text()
        (many / name).write_bytes(content)
    assert script(*run, "--resume")[0] == 0
    assert (many / "masks.json").read_bytes() == whole


def test_other_settings_are_refused_by_name(many, checkpoints, script):
    (many / "4.png").unlink()  # so that the parts are kept
    run = words(many, checkpoints, "masks", "--num_workers", "0")
    script(*run)
    for more, difference in [
        (["--size", "96"], "--size 64, not 96"),
        (["--batch_size", "2"], "--batch_size 3, not 2"),
        (["--masks", "pngs"], "--masks None, not pngs"),
        (["--pretrain", checkpoints / "1.pth"], "a checkpoint of hash "),
    ]:
        status, _, errors = script(*run, *more, "--resume")
        assert (status, errors.count("\n"), f"it was started with {difference}" in errors) == (2, 1, True), errors
    write_lines(many / "todo.jsonl", ("1.png", "other"))
    assert "it was started with photos and sentences of hash " in script(*run, "--resume")[2]
    assert script(*run)[0] == 0
    assert [image["file_name"] for image in json.loads((many / "masks.json").read_text())["images"]] == ["1.png"]


def test_masks_with_a_peak_below_the_limit_are_empty(many, checkpoints, script):
    run = words(many, checkpoints, "masks", "--num_workers", "0")
    assert script(*run)[0] == 0
    before = json.loads((many / "masks.json").read_text())["annotations"]
    limit = sorted(a["peak"] for a in before)[7]
    assert script(*run, "--absent_below", limit)[0] == 0
    after = json.loads((many / "masks.json").read_text())["annotations"]
    for old, new in zip(before, after, strict=True):
        assert (new["peak"], new["area"]) == (old["peak"], old["area"] if old["peak"] >= limit else 0)
    status, _, errors = script(*run, "--absent_below", "suggested")
    assert (status, errors.count("\n"), "suggests no --absent_below" in errors) == (2, 1, True)


def test_a_folder_with_the_same_sentences(many, checkpoints, script):
    """Hidden files are no photos; an orientation does not turn the pixels; a lost picture is a warning."""
    turned = Image.Exif()
    turned[274] = 6
    folder = many / "folder"
    write_photo(folder / "plain.jpg")
    Image.open(folder / "plain.jpg").save(folder / "TURNED.JPG", exif=turned)
    (folder / "._plain.jpg").write_bytes(b"of macOS")
    (many / "masks.png").mkdir()
    flags = ["--photos", folder, "--text", "x", "the y", "--pretrain", checkpoints / "1.pth", "--num_workers", "0"]
    status, _, errors = script("predict.py", *flags, "--output", many / "masks.json")
    assert (status, f"warning: {many / 'masks.png'} cannot be drawn: cannot write" in errors) == (0, True)
    content = json.loads((many / "masks.json").read_text())
    assert [(i["file_name"], i["width"]) for i in content["images"]] == [("TURNED.JPG", 48), ("plain.jpg", 48)]
    assert [a["sentence"] for a in content["annotations"]] == ["x", "the y"] * 2


def test_masks_are_not_looked_at_and_sheets_have_all_rows(many, checkpoints, script):
    lines = [json.dumps({"image": "0.png", "sentences": ["x"], "mask": "lost.png", "bbox": "?"})] * 40
    (many / "todo.jsonl").write_text("\n".join(lines))
    status, output, _ = script(*words(many, checkpoints, "masks", "--num_workers", "0"))
    assert status == 0
    with Image.open(many / "masks.png") as sheet:
        assert sheet.height // 160 == 8  # rows of four masks: 8 + 16 + 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give one of --sentences, --photos and --dataset"),
        (["--photos", ".", "--dataset", "jsonl"], "give one of --sentences, --photos and --dataset"),
        (["--photos", "."], "--photos and --text belong together"),
        (["--photos", ".", "--text", " "], "--text has an empty sentence"),
        (["--photos", "docs", "--text", "x"], "the folder docs holds no photo"),
        (["--photos", "nowhere", "--text", "x"], "the folder nowhere cannot be read (No such file or directory)"),
        (["--sentences", "nowhere.jsonl"], "nowhere.jsonl is not there"),
        (["--sentences", "nowhere.jsonl", "--output", "masks.png"], "masks.png is not the name of a .json file"),
    ],
)
def test_mistakes_are_one_line(flags, message, script):
    status, _, errors = script("predict.py", "--pretrain", "nowhere.pth", *flags)
    assert (status, errors.count("\n"), message in errors) == (2, 1, True), errors


def test_photos_that_are_all_elsewhere_are_noticed_before_the_night(many, checkpoints, script):
    write_lines(many / "todo.jsonl", *((f"photos/{number}.png", "x") for number in range(10)))
    status, _, errors = script(*words(many, checkpoints, "masks"))
    assert (status, errors.count("\n"), "holds none of the photos, such as photos/0.png" in errors) == (2, 1, True)
