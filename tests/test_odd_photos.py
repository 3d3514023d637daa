"""Photos with a row or a column more or less than annotated, and pictures that cannot be drawn: neither stops a run."""

import shutil
from functools import partial

import pytest
import torch
from PIL import Image

from dataset.artifacts import png_path, read_map, read_mask
from dataset.datasets import load_splits
from dataset.samples import EvalPhotos, eval_loader
from model.evaluation import evaluate
from model.report import draw_cases, report_split, write_page, write_report
from tests.conftest import data_words, train_words
from toy.layouts import write_refcocog
from toy.photos import make_photos

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def odd(tmp_path):
    """A world in which every photo has a row less than annotated, or a column more."""
    write_refcocog(tmp_path / "odd", make_photos(7, {"train": 2, "val": 2, "test": 0}))
    for number, path in enumerate(sorted((tmp_path / "odd" / "train2014").iterdir())):
        photo = Image.open(path)
        photo.resize((photo.width + number % 2, photo.height - (number + 1) % 2)).save(path)
    return tmp_path / "odd"


def test_both_stages_and_every_export_go_on(trained, odd, tmp_path, script):
    splits = load_splits("refcocog", odd, "umd", ["train", "val"])
    of_training, maps, masks = splits["train"].references, tmp_path / "cam", tmp_path / "masks"
    validate = ["validate.py", *data_words(odd), "--output", trained[0]]
    export = ["--test_split", "train", "--cam_save_dir", maps, "--cam_format"]
    for words in (
        ["train_stage1.py", *train_words(odd, tmp_path / "stage1", "--epoch", "1")],
        [*validate, "--prms", "--report", tmp_path / "report"],
        [*validate, *export, "native"],
        [*validate, *export, "full"],
    ):
        status, _, errors = script(*words)
        assert (status, errors) == (0, "")
    assert "data:image/jpeg" in (tmp_path / "report" / "report.html").read_text()
    assert (tmp_path / "stage1" / "examples.png").is_file() and (tmp_path / "cam_train.png").is_file()
    targets = [target for batch in EvalPhotos(splits["train"], 64, 20, masks=False) for target in batch.targets]
    for target in targets:
        assert read_map(maps, target.reference.name).shape == target.size == target.reference.size

    masks.mkdir()  # at the sizes of the photos, as other tools make them
    for reference in of_training[1:]:
        with Image.open(splits["train"].photo_path(reference)) as photo:
            Image.new("L", photo.size, 255).save(png_path(masks, reference.name))
        assert read_mask(masks, reference.name, reference.size).shape == reference.size
    kept = ["--pseudo_path", masks, "--skip_missing"]
    stage2 = train_words(odd, tmp_path / "stage2", "--epoch", "1", *kept)
    for words in (["train_stage2.py", *stage2], [*validate, "--test_split", "train", *kept]):
        status, printed, errors = script(*words)
        assert status == 0, errors
        assert f"refs of train, in {masks}, not {of_training[0].name}\n" in printed


def test_results_are_there_when_a_picture_cannot_be_written(trained, world, tmp_path, script):
    """Another file cannot take the place of a folder."""
    for name in ("stage1/examples.png", "cam_val.png"):
        (tmp_path / name / "taken").mkdir(parents=True)
    export = ["--cam_save_dir", tmp_path / "cam", "--name_save_dir", tmp_path, "--json", tmp_path / "val.json"]
    for words, picture, result in (
        (
            ["train_stage1.py", *train_words(world, tmp_path / "stage1", "--epoch", "1")],
            "examples.png",
            "ckpt_last.pth",
        ),
        (["validate.py", *data_words(world), "--output", trained[0], *export], "cam_val.png", "val.json"),
    ):
        status, _, errors = script(*words)
        assert (status, errors.count("\n")) == (0, 1)
        assert errors.startswith("warning: ") and f"{picture}: Is a directory" in errors
        assert list(tmp_path.rglob(result))


def test_a_case_whose_photo_has_vanished_is_left_out_of_the_report(world, toy_stage1, tmp_path, capsys):
    shutil.copytree(world, tmp_path / "world")
    split = load_splits("refcocog", tmp_path / "world", "umd", ["val"])["val"]
    device = torch.device("cpu")
    outcomes = evaluate(toy_stage1, eval_loader(EvalPhotos(split, 64, 20), 1, 0), device)
    report = report_split(split, outcomes)
    draw = partial(draw_cases, split, outcomes, report, toy_stage1, device, None, 64, 20)
    whole = draw()
    split.photo_path(split.references[-1]).unlink()
    pictures = draw()
    assert 0 < len(pictures) < len(whole)
    assert "warning: some cases of val cannot be drawn: the photo" in capsys.readouterr().err
    write_page(tmp_path, write_report(tmp_path, "", None, {"val": report}), {"val": pictures})
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") > 0


def test_a_training_killed_before_its_log_and_examples_makes_them_when_it_is_resumed(trained, world, tmp_path, script):
    output = tmp_path / "stage1"
    shutil.copytree(trained[0], output)
    left = [output / "log.jsonl", output / "examples.png"]
    whole = [file.read_bytes() for file in left]
    for file in left:
        file.unlink()
    status, printed, _ = script("train_stage1.py", *train_words(world, output, "--resume"))
    assert (status, "all 2 epochs" in printed) == (0, True)
    assert [file.read_bytes() for file in left] == whole
