"""The scripts as a user runs them, on a small toy world: commands that follow each other, and every kind of mistake."""

import json
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset.artifacts import map_path, read_map
from dataset.datasets import load_splits
from dataset.samples import EvalPhotos, eval_loader
from model.build import load_network
from model.evaluation import evaluate, suggest_absent_below
from model.sheets import EXAMPLE_TILE
from tests.conftest import GPU, ROOT, SMALL, data_words, run, train_words
from tests.processes import Started
from toy.layouts import write_refcocog
from toy.photos import make_photos
from utils.files import lock_folder
from utils.metrics import Outcome
from utils.pictures import GAP

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(file):
    return torch.load(file, weights_only=True)["model"]


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_training_leaves_checkpoints_a_log_examples_and_tensorboard_events(trained, world):
    output, printed = trained
    assert {f.name for f in output.iterdir()} >= {"ckpt.pth", "ckpt_hit.pth", "ckpt_last.pth", "log.jsonl", "board"}
    lines = log_of(output)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "classification", "foreground", "negative", "val/mIoU", "val/PointM"} <= set(lines[0])
    parts = 5 * lines[0]["classification"] + lines[0]["foreground"] + 2 * lines[0]["negative"]
    assert lines[0]["loss"] == pytest.approx(parts, rel=1e-5)
    assert "epoch 2 of 2" in printed
    assert f"{output / 'examples.png'}" in printed

    board = EventAccumulator(str(output / "board")).Reload()
    assert {"train/loss", "train/foreground", "lr/0", "lr/1", "val/mIoU", "val/Hit"} <= set(board.Tags()["scalars"])
    assert "settings/text_summary" in board.Tags()["tensors"]
    steps = -(-len(load_splits("refcocog", world, "umd", ["train"])["train"].references) // 4)
    assert [event.step for event in board.Images("examples")] == [steps, 2 * steps]
    first, second = (np.array(Image.open(BytesIO(event.encoded_image_string))) for event in board.Images("examples"))
    left = 2 * (EXAMPLE_TILE + GAP)
    assert (first[:, :left] == second[:, :left]).all()  # the same sentences and photos
    assert (second == np.array(Image.open(output / "examples.png"))).all()


def test_a_training_that_was_killed_resumes_to_the_same_weights(trained, world, tmp_path, script):
    """Killed in its second epoch; a second kill would not matter either, since an epoch is saved last of all."""
    words = ["train_stage1.py", *train_words(world, tmp_path)]
    process = Started(words)
    while not (tmp_path / "ckpt_last.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(torch.load(tmp_path / "ckpt_last.pth", weights_only=True)["history"]) == 1
    status, printed, _ = script(*words, "--resume")
    assert (status, "training epochs 2 to 2" in printed) == (0, True)
    for name in ("ckpt_last.pth", "ckpt.pth"):
        whole, resumed = (weights(folder / name) for folder in (trained[0], tmp_path))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_finished_training_is_resumed_with_its_own_network_and_by_one_run_at_a_time(trained, world, script):
    words = ["--test_split", "val", "--batch_size", "4", "--epoch", "2", "--output", trained[0], "--resume"]
    status, printed, errors = script("train_stage1.py", *data_words(world), *words)
    assert (status, "all 2 epochs" in printed) == (0, True), errors
    status, _, errors = script("train_stage1.py", *data_words(world), *words, "--size", "96")
    assert (status, "size was 64 and is 96; use the same flags" in errors) == (2, True)
    with lock_folder(trained[0]):
        status, _, errors = script("train_stage1.py", *train_words(world, trained[0]))
    assert (status, "another run is writing to" in errors) == (2, True)


def test_validation_prints_and_writes_the_same_metrics_and_a_card_of_them(trained, world, tmp_path, script):
    words = ["validate.py", *data_words(world), "--output", trained[0], "--resume", "--pretrain", "ckpt.pth", "--eval"]
    file, first, second = tmp_path / "m.json", tmp_path / "first" / "report.json", tmp_path / "second" / "report.json"
    status, printed, _ = script(*words, "--test_split", "val,test", "--json", file, "--report", first.parent)
    assert (status, "report.html" in printed) == (0, True)
    metrics = json.loads(file.read_text())
    assert list(metrics) == ["val", "test"]
    assert {"mIoU", "oIoU", "P@0.5", "P@0.9", "PointM", "Hit", "box_mIoU", "box_acc"} <= set(metrics["val"])
    assert f"{metrics['test']['mIoU']:.2f}" in printed
    best = max(line["val/mIoU"] for line in log_of(trained[0]))
    assert metrics["val"]["mIoU"] == pytest.approx(best, abs=0.05)
    as_trained = [*data_words(world)[:6], "--num_workers", "0", "--output", trained[0], "--json", tmp_path / "n.json"]
    assert script("validate.py", *as_trained)[0] == 0
    assert json.loads((tmp_path / "n.json").read_text())["val"] == metrics["val"]
    card = json.loads(first.read_text())["splits"]["val"]
    assert card["metrics"]["mIoU"]["value"] == pytest.approx(metrics["val"]["mIoU"], abs=0.01)
    assert sum(card["histogram"]) == card["sentences"] == len(card["table"]["outcome"])
    page = (first.parent / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 2 * 3 * min(12, card["sentences"])
    assert script(*words, "--test_split", "test", "--report", second.parent, "--compare", first)[0] == 0
    differences = json.loads(second.read_text())["splits"]["test"]["differences"]
    assert differences["mIoU"] == {"value": 0, "low": 0, "high": 0}
    status, _, errors = script(*words, "--test_split", "val", "--report", tmp_path / "third", "--compare", second)
    assert (status, "has no usable table of the split 'val'" in errors, errors.count("\n")) == (2, True, 1)
    assert not (tmp_path / "third").exists()


def test_a_missing_photo_costs_no_metrics_of_earlier_splits(trained, world, tmp_path, script):
    shutil.copytree(world, tmp_path / "world")
    split = load_splits("refcocog", tmp_path / "world", "umd", ["test"])["test"]
    split.photo_path(split.references[-1]).unlink()
    words = [*data_words(tmp_path / "world"), "--test_split", "val,test", "--json", tmp_path / "metrics.json"]
    status, printed, errors = script("validate.py", *words, "--output", trained[0])
    assert (status, errors.count("\n")) == (2, 1)
    assert printed.splitlines()[-1].startswith("val ") and not (tmp_path / "metrics.json").exists()


def test_masks_are_empty_where_scores_are_low(trained, tmp_path, script):
    """Training stores the limit; with it, or with a number, evaluation empties masks and changes nothing else."""
    write_refcocog(tmp_path, make_photos(7, {"train": 2, "val": 1, "test": 2}), general=True)
    words = ["--dataset", "grefcoco", "--splitBy", "unc", "--refer_data_root", tmp_path, *SMALL, "--test_split", "test"]
    words = ["validate.py", *words, "--output", trained[0]]
    stored = torch.load(trained[0] / "ckpt.pth", weights_only=True)["metrics"]["absent_below"]
    assert stored in [line["absent_below"] for line in log_of(trained[0])]
    found = {}
    for limit in ("-1000", stored, "suggested", "1000"):
        file = tmp_path / f"{limit}.json"
        status, _, errors = script(*words, "--absent_below", limit, "--json", file, "--report", tmp_path / str(limit))
        assert status == 0, errors
        found[limit] = json.loads(file.read_text())["test"]
    assert script(*words, "--json", tmp_path / "off.json")[0] == 0
    assert json.loads((tmp_path / "off.json").read_text())["test"] == found["-1000"]
    assert found[stored] == found["suggested"]
    off, on = found["-1000"], found["1000"]
    assert (on["N_acc"], on["T_acc"], on["empty"], on["mIoU"]) == (100, 0, 100, 0)
    assert (on["PointM"], on["Hit"]) == (off["PointM"], off["Hit"])
    table = json.loads((tmp_path / "suggested" / "report.json").read_text())["splits"]["test"]["table"]["outcome"]
    outcomes = [Outcome(*row) for row in table]
    assert all(not outcome.predicted for outcome in outcomes if outcome.peak < stored)
    assert {outcome.absent for outcome in outcomes} == {True, False}
    status, printed, _ = script("toy/measure_absence.py", "--pretrain", trained[0] / "ckpt.pth", "--data", tmp_path)
    assert (status, f"limit {stored}" in printed, "absent by place" in printed) == (0, True, True)
    for more, message in (("suggested", "suggests no --absent_below"), ("nan", "not a number or the word suggested")):
        status, _, errors = script(*words, "--untrained", "--backbone", "toy", "--absent_below", more)
        assert (status, message in errors, errors.count("\n")) == (2, True, 1)


def test_the_limit_is_the_score_that_95_percent_of_true_sentences_reach(world, trained):
    network, split = load_network(trained[0] / "ckpt.pth"), load_splits("refcocog", world, "umd", ["train"])["train"]
    loader = eval_loader(EvalPhotos(split, 64, 20), 1, 0)
    scores = np.array([outcome.peak for outcome in evaluate(network, loader, torch.device("cpu"))])
    limit = suggest_absent_below(network, loader, torch.device("cpu"))
    assert (scores >= limit).mean() == pytest.approx(0.95, abs=1 / len(scores))
    assert network.suggested_absent_below in [line["absent_below"] for line in log_of(trained[0])]


def test_export_writes_a_map_for_each_ref_and_their_names(trained, world, tmp_path, monkeypatch, capsys):
    cam, native = tmp_path / "cam", tmp_path / "native"
    cam.mkdir()
    monkeypatch.syspath_prepend(ROOT)
    words = [*data_words(world), "--test_split", "train", "--output", trained[0], "--prms", "--name_save_dir", tmp_path]
    for more in (["--save_cam", "--cam_save_dir", "."], ["--cam_save_dir", native, "--cam_format", "native"]):
        done = run(ROOT / "validate.py", *words, *more, monkeypatch=monkeypatch, capsys=capsys, folder=cam)
        assert done[0] == 0, done[2]
    assert (tmp_path / "cam_train.png").is_file()  # beside the maps' folder, also where that is the current one
    names = json.loads((tmp_path / "refcocog_train_names.json").read_text())
    photos = json.loads((tmp_path / "refcocog_train_images.json").read_text())
    assert sorted(f"{name}.npy" for name in names) == sorted(f.name for f in cam.iterdir())
    for name in names:
        response = np.load(cam / f"{name}.npy")
        with Image.open(world / "train2014" / photos[name]) as photo:
            assert (response.shape, response.dtype) == ((photo.height, photo.width), np.float32)
        assert response.min() >= 0 and response.max() <= 1
        assert np.allclose(read_map(native, name), read_map(cam, name), atol=1e-6)
        assert map_path(native, name).stat().st_size < 1000


def test_stage2_trains_on_masks_and_is_recognised(trained, world, tmp_path, script):
    masks, output = tmp_path / "masks", tmp_path / "stage2"
    validate = ["validate.py", *data_words(world)]
    words = ["--output", trained[0], "--cam_save_dir", tmp_path / "cam", "--name_save_dir", tmp_path]
    assert script(*validate, "--test_split", "train", *words)[0] == 0
    masks.mkdir()
    for file in (tmp_path / "cam").iterdir():
        Image.fromarray(((np.load(file) > 0.5) * 255).astype(np.uint8)).save(masks / f"{file.stem}.png")
    training = train_words(world, output, "--pseudo_path", str(masks), "--model_ema")
    status, _, errors = script("train_stage2.py", *training)
    assert status == 0, errors
    assert {"segmentation1", "segmentation4", "consistency", "val/mIoU"} <= set(log_of(output)[-1])
    assert script(*validate, "--test_split", "test", "--output", output)[0] == 0
    status, _, errors = script(*validate, "--output", output, "--cam_format", "native", "--cam_save_dir", "x")
    assert (status, "--cam_format native is about stage 1's response maps" in errors) == (2, True)
    status, printed, _ = script(*validate, "--test_split", "train", "--pseudo_path", masks)
    assert (status, "mIoU" in printed, "PointM" in printed, "Hit" in printed) == (0, True, False, False)
    next(masks.iterdir()).unlink()
    status, _, errors = script("train_stage2.py", *training)
    assert (status, "1 of " in errors, "--skip_missing" in errors) == (2, True, True)


def test_a_split_with_masks_on_some_lines_is_exported(world, tmp_path, script):
    """And not evaluated: `--cam_save_dir` alone needs no mask."""
    photo = next((world / "train2014").iterdir())
    shutil.copy(photo, tmp_path / "a.jpg")
    lines = [{"image": "a.jpg", "sentences": ["x"]}, {"image": "a.jpg", "sentences": ["y"]}]
    lines[0]["mask"] = [[0, 0, 9, 0, 9, 9]]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--dataset", "jsonl", "--refer_data_root", tmp_path, "--test_split", "train", *SMALL]
    words += ["--untrained", "--backbone", "toy", "--hidden_dim", "16"]
    status, printed, errors = script("validate.py", *words, "--cam_save_dir", tmp_path / "cam")
    assert (status, "train: 2 refs, 0 sentences" in printed) == (0, True), errors
    assert len(list((tmp_path / "cam").iterdir())) == 2


def test_referit_trains_and_validates(trained, world, tmp_path, script):
    words = ["--dataset", "referit", "--dataset_root", world / "referit", *SMALL]
    training = train_words(world, tmp_path, "--epoch", "1")
    status, _, errors = script("train_stage1.py", *training, *words, "--test_split", "test")
    assert status == 0, errors
    words += ["--output", tmp_path, "--resume", "--pretrain", "ckpt.pth", "--report", tmp_path]
    status, printed, _ = script("validate_referit.py", *words)
    assert (status, "test" in printed) == (0, True)
    assert "Other refs of the same category" not in (tmp_path / "report.html").read_text()


def test_the_demo_paints_and_masks(trained, world, tmp_path, script):
    photo = next((world / "train2014").iterdir())
    texts = ["red star", "a/b"]
    words = ["--img", photo, "--pretrain", trained[0] / "ckpt.pth", "--output", tmp_path, "--mask", "--text", *texts]
    status, printed, errors = script("demo.py", *words, "--size", "64")
    assert status == 0, errors
    ends = (".png", "_mask.png", "_mask.json")
    names = [f"{photo.stem}_({text}){end}" for text in ("red star", "a_b") for end in ends]
    assert [Path(line).name for line in printed.split("\n") if line] == names
    image, painted, mask = (np.array(Image.open(file)) for file in (photo, tmp_path / names[0], tmp_path / names[1]))
    assert painted.shape[:2] == mask.shape == image.shape[:2]
    runs = json.loads((tmp_path / names[2]).read_text())
    assert (coco.decode(runs) == (mask > 0)).all()


def test_the_demo_goes_on_after_a_bad_photo_and_passes_over_hidden_files(trained, world, tmp_path, script):
    photo, folder, words = next((world / "train2014").iterdir()), tmp_path / "photos", ["--output", tmp_path / "new"]
    folder.mkdir()
    for name in ("a.JPE", "c.jfif"):
        shutil.copy(photo, folder / name)
    Image.open(photo).save(folder / "d.gif")
    for name in ("._a.jpg", "b.jpg", "notes.txt"):  # macOS writes the first kind on other systems' disks
        (folder / name).write_bytes(b"no photo")
    words += ["--size", "64", "--pretrain", trained[0] / "ckpt.pth", "--text", "red star", "--img"]
    status, printed, errors = script("demo.py", *words, photo, folder)
    assert [Path(line).stem for line in printed.splitlines()] == [f"{name}_(red star)" for name in (photo.stem, *"acd")]
    first, last = errors.splitlines()
    assert first.startswith(f"demo.py: the photo {folder / 'b.jpg'} cannot be decoded (")
    assert (status, last) == (2, "demo.py: 1 of 5 photos could not be read, see above")
    status, printed, errors = script("demo.py", *words, folder / "b.jpg", folder / "notes.txt", "--pretrain", "absent")
    assert (status, printed, errors.count("cannot be decoded")) == (2, "", 2)


def test_pictures_of_different_sentences_have_different_names(tmp_path):
    from demo import picture_path

    assert len(picture_path(tmp_path, Path("a"), "人" * 100, ()).name.encode()) <= 110
    written = set()
    for photo, sentence in (("a.jpg", "x/y"), ("a.jpg", "x:y"), ("a.png", "x/y")):
        written.add(picture_path(tmp_path, Path(photo), sentence, written))
    assert {path.name for path in written} == {"a_(x_y).png", "a_(x_y)_2.png", "a_(x_y)_3.png"}


def test_half_precision_and_another_network_to_start_from(trained, world, tmp_path, script):
    plain = log_of(trained[0])[0]["loss"]
    more = ["--pretrained_checkpoint", str(trained[0] / "ckpt.pth")]
    for folder, words in ((tmp_path / "half", ["--amp", "bf16"]), (tmp_path / "tuned", more)):
        status, _, errors = script("train_stage1.py", *train_words(world, folder, "--epoch", "1", *words))
        assert status == 0, errors
    half, tuned = (log_of(tmp_path / name)[0]["loss"] for name in ("half", "tuned"))
    assert half != plain and half == pytest.approx(plain, rel=0.05)
    assert tuned < plain
    words = train_words(world, tmp_path / "tuned", "--epoch", "1", *more)
    status, printed, _ = script("train_stage1.py", *words, "--resume")
    assert (status, "all 1 epochs" in printed) == (0, True)


@pytest.mark.gpu
def test_training_and_evaluation_on_a_gpu(world, tmp_path):
    for words in (
        ["train_stage1.py", *train_words(world, tmp_path, "--amp", "bf16")],
        ["validate.py", *data_words(world), "--output", str(tmp_path), "--prms", "--json", str(tmp_path / "val.json")],
    ):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, env=GPU, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "val.json").read_text())["val"]
    assert found["mIoU"] == pytest.approx(max(line["val/mIoU"] for line in log_of(tmp_path)), abs=0.5)
