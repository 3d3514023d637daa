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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset.artifacts import read_map
from dataset.loading import load_splits
from model.examples import TILE
from tests.conftest import ROOT, SMALL, data_words, train_words
from utils.pictures import GAP

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(file):
    return torch.load(file, weights_only=True)["model"]


def test_training_leaves_checkpoints_and_a_log(trained):
    output, printed = trained
    assert {f.name for f in output.iterdir()} >= {"ckpt.pth", "ckpt_hit.pth", "ckpt_last.pth", "log.jsonl", "board"}
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "classification", "foreground", "negative", "val/mIoU", "val/PointM"} <= set(lines[0])
    parts = 5 * lines[0]["classification"] + lines[0]["foreground"] + 2 * lines[0]["negative"]
    assert lines[0]["loss"] == pytest.approx(parts, rel=1e-5)
    assert "epoch 2 of 2" in printed
    assert f"{output / 'examples.png'}" in printed


def test_tensorboard_has_losses_rates_figures_settings_and_the_same_photos_each_epoch(trained, world):
    board = EventAccumulator(str(trained[0] / "board")).Reload()
    scalars = {"train/loss", "train/foreground", "lr/0", "lr/1", "val/mIoU", "val/Hit"}
    assert scalars <= set(board.Tags()["scalars"])
    assert "settings/text_summary" in board.Tags()["tensors"]
    steps = len(load_splits("refcocog", world, "umd", ["train"])["train"].references) // 4
    first, second = board.Images("examples")
    assert (first.step, second.step) == (steps, 2 * steps)
    first, second = (np.array(Image.open(BytesIO(event.encoded_image_string))) for event in (first, second))
    tile = TILE + GAP
    assert (first[:, : 2 * tile] == second[:, : 2 * tile]).all()  # sentence and photo
    assert (second == np.array(Image.open(trained[0] / "examples.png"))).all()


def test_the_same_seed_repeats_a_training_and_another_does_not(trained, world, tmp_path, script):
    assert script("train_stage1.py", *train_words(world, tmp_path / "same"))[0] == 0
    assert script("train_stage1.py", *train_words(world, tmp_path / "other", "--seed", "5"))[0] == 0
    first, same, other = (weights(f / "ckpt_last.pth") for f in (trained[0], tmp_path / "same", tmp_path / "other"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_training_that_was_ended_by_a_signal_goes_on_to_the_same_weights(trained, world, tmp_path, script):
    words = ["train_stage1.py", *train_words(world, tmp_path, "--save_every", "0.00001")]
    command = [sys.executable, *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "ckpt_last.pth").exists() and process.poll() is None:
        time.sleep(0.01)  # until the first step is saved
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted; the training is saved, go on with the same command and --resume" in errors
    assert "Traceback" not in errors
    stopped = torch.load(tmp_path / "ckpt_last.pth", weights_only=True)["training"]
    assert (0, 0) < (stopped["epoch"], stopped["step"]) < (2, 0)
    assert script(*words, "--resume")[0] == 0
    whole, resumed = (weights(folder / "ckpt_last.pth") for folder in (trained[0], tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_resuming_with_other_settings_is_refused_with_the_differences(trained, world, script):
    status, _, errors = script(
        "train_stage1.py", *train_words(world, trained[0], "--resume", "--lr", "0.1", "--w5", "0")
    )
    assert status == 2
    assert "lr was 5e-05 and is 0.1; w5 was 2.0 and is 0.0" in errors


@pytest.mark.parametrize("part", ["optimizer", "lr_scheduler", "history"])
def test_resuming_from_a_damaged_training_is_refused(trained, world, tmp_path, script, part):
    content = torch.load(trained[0] / "ckpt_last.pth", weights_only=True)
    content["training"][part] = 7
    torch.save(content, tmp_path / "ckpt_last.pth")
    status, _, errors = script("train_stage1.py", *train_words(world, tmp_path, "--resume"))
    assert status == 2
    assert f"the training in {tmp_path}/ckpt_last.pth is damaged" in errors
    assert (errors.count("\n"), "train without --resume" in errors) == (1, True)


def test_validation_prints_and_writes_the_same_figures(trained, world, tmp_path, script):
    words = ["--output", trained[0], "--resume", "--pretrain", "ckpt.pth", "--eval", "--json", tmp_path / "f.json"]
    status, printed, _ = script("validate.py", *data_words(world), "--test_split", "val,test", *words)
    assert status == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert list(figures) == ["val", "test"]
    assert {"mIoU", "oIoU", "P@0.5", "P@0.9", "PointM", "Hit", "box_mIoU", "box_acc"} <= set(figures["val"])
    assert f"{figures['test']['mIoU']:.2f}" in printed
    log = [json.loads(line) for line in (trained[0] / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda line: line["val/mIoU"])
    assert figures["val"]["mIoU"] == pytest.approx(best["val/mIoU"], abs=0.05)


def test_the_metric_card_and_its_comparison(trained, world, tmp_path, script):
    words = ["validate.py", *data_words(world), "--output", trained[0]]
    first, second = tmp_path / "first" / "report.json", tmp_path / "second" / "report.json"
    cached = ["--cache_images", tmp_path / "cache"]
    status, printed, _ = script(*words, "--test_split", "val,test", "--report", first.parent, *cached)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # a file a split, none for the pictures of the cases
    assert (status, "report.html" in printed) == (0, True)
    report = json.loads(first.read_text())["splits"]["val"]
    assert f"{report['figures']['mIoU']['value']:.2f}" in printed
    assert sum(report["histogram"]) == report["sentences"] == len(report["table"]["outcome"])
    page = (first.parent / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 2 * 3 * min(12, report["sentences"])
    status, _, errors = script(*words, "--test_split", "test", "--report", second.parent, "--compare", first)
    assert status == 0, errors
    differences = json.loads(second.read_text())["splits"]["test"]["differences"]
    assert differences["mIoU"] == {"value": 0, "low": 0, "high": 0}
    status, _, errors = script(*words, "--test_split", "val", "--report", tmp_path / "third", "--compare", second)
    assert (status, "is no report of val" in errors, errors.count("\n")) == (2, True, 1)
    changed = json.loads(first.read_text())
    changed["splits"]["val"]["table"]["text"][0] = "another"
    first.write_text(json.dumps(changed))
    status, _, errors = script(*words, "--test_split", "val", "--report", tmp_path / "third", "--compare", first)
    assert (status, "is of other sentences of the split 'val'" in errors) == (2, True)
    assert not (tmp_path / "third").exists()


def test_export_writes_a_map_for_each_ref_and_their_names(trained, world, tmp_path, script):
    words = ["--output", trained[0], "--prms", "--cam_save_dir", tmp_path / "cam", "--name_save_dir", tmp_path]
    status, printed, _ = script("validate.py", *data_words(world), "--test_split", "train", *words, "--save_cam")
    assert status == 0
    assert f"some of them in {tmp_path / 'cam_train.png'}" in printed
    assert (tmp_path / "cam_train.png").is_file()
    names = json.loads((tmp_path / "refcocog_train_names.json").read_text())
    photos = json.loads((tmp_path / "refcocog_train_images.json").read_text())
    assert sorted(f"{name}.npy" for name in names) == sorted(f.name for f in (tmp_path / "cam").iterdir())
    for name in names:
        response = np.load(tmp_path / "cam" / f"{name}.npy")
        with Image.open(world / "train2014" / photos[name]) as photo:
            assert response.shape == (photo.height, photo.width)
        assert response.dtype == np.float32
        assert response.min() >= 0
        assert response.max() <= 1
    words += ["--cam_save_dir", tmp_path / "native", "--cam_format", "native"]
    assert script("validate.py", *data_words(world), "--test_split", "train", *words)[0] == 0
    for name in names:
        assert np.array_equal(read_map(tmp_path / "native", name), read_map(tmp_path / "cam", name))
        assert (tmp_path / "native" / f"{name}.npy").stat().st_size < 400


def test_stage2_trains_on_masks_and_is_recognised(trained, world, tmp_path, script):
    masks = tmp_path / "masks"
    words = ["--output", trained[0], "--cam_save_dir", tmp_path / "cam", "--name_save_dir", tmp_path]
    assert script("validate.py", *data_words(world), "--test_split", "train", *words)[0] == 0
    masks.mkdir()
    for file in (tmp_path / "cam").iterdir():
        response = np.load(file)
        Image.fromarray(((response > 0.5) * 255).astype(np.uint8)).save(masks / f"{file.stem}.png")
    training = train_words(world, tmp_path / "stage2", "--pseudo_path", str(masks), "--model_ema")
    status, printed, errors = script("train_stage2.py", *training)
    assert status == 0, errors
    log = json.loads((tmp_path / "stage2" / "log.jsonl").read_text().splitlines()[-1])
    assert {"segmentation1", "segmentation4", "consistency", "val/mIoU"} <= set(log)
    status, printed, _ = script(
        "validate.py", *data_words(world), "--test_split", "test", "--output", tmp_path / "stage2"
    )
    assert status == 0
    status, _, errors = script("validate.py", *data_words(world), "--output", tmp_path / "stage2", "--prms")
    assert (status, "this checkpoint is of stage 2" in errors) == (2, True)
    native = [*data_words(world), "--output", tmp_path / "stage2", "--cam_format", "native"]
    status, _, errors = script("validate.py", *native, "--cam_save_dir", tmp_path / "x")
    assert (status, "keeps stage 1's scores, this checkpoint is of stage 2" in errors) == (2, True)
    status, printed, _ = script("validate.py", *data_words(world), "--test_split", "train", "--pseudo_path", masks)
    assert (status, "train" in printed) == (0, True)
    next(masks.iterdir()).unlink()
    status, _, errors = script("train_stage2.py", *training)
    assert (status, "1 of " in errors, "--skip_missing" in errors) == (2, True, True)


def test_a_resumed_training_knows_backbone_and_scorer_from_its_checkpoint(trained, world, tmp_path, script):
    shutil.copytree(trained[0], tmp_path / "copy")
    words = ["--test_split", "val", "--batch_size", "4", "--epoch", "2", "--output", tmp_path / "copy", "--resume"]
    status, printed, errors = script("train_stage1.py", *data_words(world), *words)
    assert (status, "training from epoch 3" in printed) == (0, True), errors


def test_a_split_with_masks_on_some_lines_is_exported(world, tmp_path, script):
    """And not evaluated; what `--cam_save_dir` alone asks for needs no mask."""
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
    status, _, errors = script("validate.py", *words)
    assert (status, "has no mask for ref 1_0" in errors) == (2, True)


def test_referit_trains_and_validates(trained, world, tmp_path, script):
    words = ["--dataset", "referit", "--dataset_root", world / "referit", *SMALL]
    status, _, errors = script(
        "train_stage1.py", *train_words(world, tmp_path, "--epoch", "1"), *words, "--test_split", "test"
    )
    assert status == 0, errors
    status, printed, _ = script(
        "validate_referit.py", *words, "--output", tmp_path, "--resume", "--pretrain", "ckpt.pth", "--report", tmp_path
    )
    assert (status, "test" in printed) == (0, True)
    assert "Other refs of the same category" not in (tmp_path / "report.html").read_text()


def test_the_demo_paints_and_masks(trained, world, tmp_path, script):
    photo = next((world / "train2014").iterdir())
    texts = ["red star", "a/b"]
    words = ["--img", photo, "--pretrain", trained[0] / "ckpt.pth", "--output", tmp_path, "--mask", "--text", *texts]
    status, printed, errors = script("demo.py", *words, "--size", "64")
    assert status == 0, errors
    names = [
        f"{photo.stem}_({text}){end}" for text in ("red star", "a_b") for end in (".png", "_mask.png", "_mask.json")
    ]
    assert [Path(line).name for line in printed.split("\n") if line] == names
    from pycocotools import mask as coco

    with (
        Image.open(photo) as image,
        Image.open(tmp_path / names[0]) as painted,
        Image.open(tmp_path / names[1]) as mask,
    ):
        assert painted.size == mask.size == image.size
        runs = json.loads((tmp_path / names[2]).read_text())
        assert (coco.decode(runs) == (np.asarray(mask) > 0)).all()


def test_pictures_of_different_sentences_have_different_names(tmp_path):
    from demo import file_name, picture_path

    assert len(file_name("人" * 100).encode()) <= 100
    taken = set()
    for file, sentence in (("a.jpg", "x/y"), ("a.jpg", "x:y"), ("a.png", "x/y")):
        taken.add(picture_path(tmp_path, Path(file), sentence, taken))
    assert {path.name for path in taken} == {"a_(x_y).png", "a_(x_y)_2.png", "a_(x_y)_3.png"}


def test_two_runs_on_one_output(trained, world, script):
    from utils.files import owned_by_this_run

    with owned_by_this_run(trained[0]):
        status, _, errors = script("train_stage1.py", *train_words(world, trained[0]))
    assert (status, "another run is writing to" in errors) == (2, True)


@pytest.mark.parametrize(
    "name",
    [
        "train_stage1.py",
        "train_stage2.py",
        "validate.py",
        "validate_referit.py",
        "demo.py",
        "IRNet/run_sample_refer.py",
        "scripts/run_pipeline.py",
        "scripts/download.py",
        "scripts/export_onnx.py",
        "scripts/pipeline_picture.py",
    ],
)
def test_help_says_what_every_flag_does_on_two_screens(name, script):
    status, printed, _ = script(name, "--help")
    assert status == 0
    assert len(printed.splitlines()) <= 2 * 50
    assert "(default: " in printed
    assert "example:" in printed
    described = printed.split("example:")[0]
    assert max(map(len, described.splitlines())) <= 110


TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_two_processes_train_together(world, tmp_path, script):
    """Half of each batch each; what they leave is evaluated by one."""
    words = ["train_stage1.py", *train_words(world, tmp_path, "--batch_size", "2", "--epoch", "1")]
    done = subprocess.run([*TWO, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "3 steps an epoch, batch 4 (2 x 2 cpu)" in done.stdout
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    status, _, _ = script("validate.py", *data_words(world), "--output", tmp_path, "--json", tmp_path / "one.json")
    assert status == 0
    assert json.loads((tmp_path / "one.json").read_text())["val"]["mIoU"] == pytest.approx(line["val/mIoU"], abs=0.05)


def test_two_processes_evaluate_and_export_as_one(trained, world, tmp_path, script):
    """Three photos: one process has two of them."""

    def words(name):
        evaluated = [*data_words(world), "--test_split", "test", "--output", str(trained[0]), "--prms"]
        return [*evaluated, "--cam_save_dir", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]

    assert script("validate.py", *words("one"))[0] == 0
    subprocess.run([*TWO, "validate.py", *words("two")], cwd=ROOT, check=True, capture_output=True, timeout=120)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert len(one) > 3
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_half_precision_trains_nearly_alike(trained, world, tmp_path, script):
    assert script("train_stage1.py", *train_words(world, tmp_path, "--amp", "bf16", "--epoch", "1"))[0] == 0
    half, whole = (json.loads((d / "log.jsonl").read_text().splitlines()[0]) for d in (tmp_path, trained[0]))
    assert half["loss"] != whole["loss"]
    assert half["loss"] == pytest.approx(whole["loss"], rel=0.05)


@pytest.mark.slow  # compiling alone takes minutes on a CPU
def test_a_compiled_training_is_nearly_the_same_and_its_checkpoint_has_the_same_names(trained, world, tmp_path, script):
    assert script("train_stage1.py", *train_words(world, tmp_path, "--compile", "--epoch", "1"))[0] == 0
    compiled, plain = (json.loads((d / "log.jsonl").read_text().splitlines()[0]) for d in (tmp_path, trained[0]))
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert weights(tmp_path / "ckpt.pth").keys() == weights(trained[0] / "ckpt.pth").keys()


def test_a_training_can_start_from_another_network(trained, world, tmp_path, script):
    words = train_words(world, tmp_path, "--pretrained_checkpoint", str(trained[0] / "ckpt.pth"), "--epoch", "1")
    assert script("train_stage1.py", *words)[0] == 0
    first, whole = (json.loads((d / "log.jsonl").read_text().splitlines()[0]) for d in (tmp_path, trained[0]))
    assert first["loss"] < whole["loss"]
    status, printed, _ = script("train_stage1.py", *words, "--resume")  # as the message of an interruption says
    assert (status, "training from epoch 2, step 1" in printed) == (0, True)
    other = train_words(world, tmp_path, "--pretrain", str(trained[0] / "ckpt.pth"), "--pseudo_path", str(tmp_path))
    status, _, errors = script("train_stage2.py", *other, "--skip_missing")
    assert (status, "fewer than a batch" in errors) == (2, True)
