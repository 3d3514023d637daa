"""The three passes as a user runs them: results, resuming, bad input, several processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from dataset.artifacts import read_label, read_mask, write_label, write_map, write_names
from IRNet import run_sample_refer, train_irn
from IRNet.cam_to_ir_label import LabelMaker
from IRNet.checkpoint import load_network
from IRNet.make_ins_seg import MaskMaker
from IRNet.processes import start_processes
from IRNet.run_sample_refer import build_parser, check, run
from IRNet.train_irn import Schedule
from utils.errors import UserError
from utils.files import owned_by_this_run

SCRIPT = Path(__file__).parent.parent / "IRNet" / "run_sample_refer.py"
SIZE = (72, 96)


class Disks:
    """A folder with photos of a disk each, response maps of them and the flags to run IRNet on it."""

    def __init__(self, folder: Path, count: int = 10):
        self.folder, self.images, self.drawn = folder, {}, {}
        for index in range(count):
            self.add(f"{index}_{index // 2}", f"{index // 2}.png")  # two refs a photo
        self.write_list()

    def add(self, name: str, file: str, size: tuple[int, int] = SIZE, mode: str = "RGB") -> None:
        self.images[name] = file
        rng = np.random.default_rng(int(name.split("_")[1]))
        disk = np.zeros(size, dtype=np.uint8)
        centre = tuple(int(side * share) for side, share in zip(size[::-1], rng.uniform(0.35, 0.65, 2), strict=True))
        cv2.circle(disk, centre, min(size) // 4, 1, -1)
        pixels = rng.normal(90, 6, (*size, 3)) + disk[..., None] * np.array([90, -40, 20])
        (self.folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(self.folder / "photos" / file)
        self.drawn[name] = disk > 0
        write_map(self.folder / "cam", name, cv2.GaussianBlur(disk.astype(np.float32), (0, 0), min(size) / 8))

    def write_list(self) -> None:
        write_names(self.folder / "toy_names.json", self.images)

    def flags(self, *passes: str, masks: str = "ins_seg", **more: object) -> list[str]:
        folders = {"cam_out_dir": "cam", "ir_label_out_dir": "ir_label", "ins_seg_out_dir": masks, "work_space": "work"}
        flags = {flag: self.folder / name for flag, name in folders.items()}
        flags |= {"train_list": self.folder / "toy_names.json", "image_root": self.folder / "photos"}
        flags |= {"backbone": "resnet-toy", "irn_crop_size": 96, "irn_batch_size": 4, "irn_num_epoches": 2}
        flags |= {"exp_times": 2, "ins_seg_bg_thres": 0.7}  # after four steps of training a long walk finds few edges
        flags |= {"num_workers": 0, **dict.fromkeys(passes, True), **more}
        pairs = [(f"--{flag}", str(value)) for flag, value in flags.items() if flag != "save_instances"]
        return [text for pair in pairs for text in pair] + ["--save_instances"] * flags.get("save_instances", False)

    def run(self, *passes: str, **more: object) -> None:
        args = build_parser().parse_args(self.flags(*passes, **more))
        check(args)
        run(args)


ALL = ("cam_to_ir_label_pass", "train_irn_pass", "make_ins_seg_pass")


def interrupt(*_):
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A folder on which all passes have run once."""
    disks = Disks(tmp_path_factory.mktemp("disks"))
    disks.run(*ALL)
    return disks


def test_every_pass_writes_its_files(disks):
    for name, disk in disks.drawn.items():
        label, mask = read_label(disks.folder / "ir_label", name), read_mask(disks.folder / "ins_seg", name)
        assert set(np.unique(label)) <= {0, 1, 255} and label.shape == mask.shape == SIZE
        assert ((label == 1) & disk).sum() / (label == 1).sum() > 0.9 and ((label == 0) & disk).mean() < 0.02
        assert (mask & disk).sum() / (mask | disk).sum() > 0.8
        assert (disks.folder / "ins_seg" / f"{name}.png").stat().st_size < 3000
    report = json.loads((disks.folder / "work" / "pseudo_masks.json").read_text())
    assert report["summary"]["masks"] == report["summary"]["listed"] == len(disks.drawn)
    assert report["refs"]["0_0"]["covered"] == pytest.approx(
        read_mask(disks.folder / "ins_seg", "0_0").mean(), abs=1e-6
    )
    with Image.open(disks.folder / "work" / "pseudo_masks.png") as sheet:
        assert sheet.width > 1900
    content = torch.load(disks.folder / "work" / "res50_irn.pth", weights_only=True)
    assert content.keys() == {"backbone", "network"}
    assert load_network(disks.folder / "work" / "res50_irn.pth").mean_displacement.abs().sum() > 0


def test_finished_items_are_kept_and_missing_ones_made_again(disks, capsys):
    labels, masks = contents(disks.folder / "ir_label"), contents(disks.folder / "ins_seg")
    times = {path: path.stat().st_mtime_ns for path in (disks.folder / "ins_seg").iterdir()}
    (disks.folder / "ir_label" / "3_1.png").unlink()
    (disks.folder / "ins_seg" / "4_2.png").unlink()
    disks.run(*ALL)
    said = capsys.readouterr().out
    assert "cam_to_ir_label: 1 made (0 of them empty), 9 already there, 0 refused" in said
    assert "make_ins_seg: 1 made (0 of them empty), 9 already there, 0 refused" in said
    assert "is there and is kept" in said
    assert contents(disks.folder / "ir_label") == labels and contents(disks.folder / "ins_seg") == masks
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"4_2.png"}


def test_an_interrupted_training_ends_where_the_uninterrupted_one_does(disks, monkeypatch):
    weights = disks.folder / "work" / "res50_irn.pth"
    expected = torch.load(weights, weights_only=True)["network"]
    original = train_irn._train_one_epoch

    def interrupted(trainer, items, label_dir, schedule, epoch, device):
        if epoch == 1:
            raise KeyboardInterrupt
        original(trainer, items, label_dir, schedule, epoch, device)

    monkeypatch.setattr(train_irn, "_train_one_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disks.run("train_irn_pass", irn_weights_name="second.pth")
    assert not (disks.folder / "work" / "second.pth").exists()
    monkeypatch.setattr(train_irn, "_train_one_epoch", original)
    assert (disks.folder / "work" / "second.pth.part").exists()
    with pytest.raises(UserError, match="other flags"):
        disks.run("train_irn_pass", irn_weights_name="second.pth", seed=1)
    disks.run("train_irn_pass", irn_weights_name="second.pth")
    found = torch.load(disks.folder / "work" / "second.pth", weights_only=True)["network"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not (disks.folder / "work" / "second.pth.part").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda part: part.pop("optimizer"), "holds no state of a training .*optimizer"),
        (lambda part: part.pop("epoch"), "holds no state of a training .*epoch"),
        (lambda part: part.update(optimizer=[]), "holds no state of a training"),
        (lambda part: part.update(step=None), "holds no state of a training"),
        (lambda part: part["network"].pop("mean_displacement"), "lacks mean_displacement"),
        (lambda part: part.pop("network"), "is no checkpoint of IRNet; remove it"),
        (None, "is damaged or holds more than tensors; remove it to start afresh"),
    ],
)
def test_a_damaged_unfinished_training_is_refused(disks, monkeypatch, tmp_path, damage, message):
    """The last step of a training is left out, so that its unfinished file stays; that is then damaged."""
    shutil.copytree(disks.folder / "ir_label", tmp_path / "ir_label")
    flags = {"ir_label_out_dir": tmp_path / "ir_label", "work_space": tmp_path, "irn_num_epoches": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_irn, "mean_displacement", interrupt)
        disks.run("train_irn_pass", **flags)
    part = tmp_path / "res50_irn.pth.part"
    content = torch.load(part, weights_only=True)
    if damage:
        damage(content)
        torch.save(content, part)
    else:
        part.write_bytes(part.read_bytes()[:999])
    with pytest.raises(UserError, match=f"pth.part {message}"):
        disks.run("train_irn_pass", **flags)


def test_a_training_without_a_step_writes_no_checkpoint(tmp_path):
    disks = Disks(tmp_path, count=2)
    for name in disks.drawn:
        write_label(tmp_path / "ir_label", name, np.zeros((4, 5)))
    with pytest.raises(UserError, match="train_irn: no IR label could be used; the lines above say why"):
        disks.run("train_irn_pass")
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".lock"]


def test_instances_as_coco_run_lengths(disks):
    disks.run("make_ins_seg_pass", masks="with_instances", save_instances=True)
    assert (disks.folder / "with_instances" / "0_0.png").read_bytes() == (
        disks.folder / "ins_seg" / "0_0.png"
    ).read_bytes()
    parts = json.loads((disks.folder / "with_instances" / "0_0.json").read_text())
    union = np.any([coco_mask.decode(part["segmentation"]) for part in parts], axis=0)
    assert (union == read_mask(disks.folder / "ins_seg", "0_0")).all()
    assert max(part["score"] for part in parts) == pytest.approx(1)


def test_two_processes_write_the_same_bytes(disks):
    passes = {"cam_to_ir_label_pass": True, "make_ins_seg_pass": True}
    args = build_parser().parse_args(
        disks.flags(masks="two_processes", ir_label_out_dir=disks.folder / "two_labels", **passes)
    )
    start_processes(2, run, args)
    assert contents(disks.folder / "two_processes") == contents(disks.folder / "ins_seg")
    assert contents(disks.folder / "two_labels") == contents(disks.folder / "ir_label")


def test_two_workers_write_the_same_bytes(disks, monkeypatch):
    monkeypatch.setattr("IRNet.passes.PHOTOS_PER_WORKER", 3)
    disks.run("make_ins_seg_pass", masks="two_workers", num_workers=2)
    assert contents(disks.folder / "two_workers") == contents(disks.folder / "ins_seg")


def spoil(disks: Disks) -> None:
    """Photos and maps of every bad kind; their names end in a number from 100 on."""
    for number, mode in ((100, "L"), (101, "RGBA"), (102, "CMYK")):
        suffix = {"RGBA": "png"}.get(mode, "jpg")
        disks.add(f"100_{number}", f"{number}.{suffix}", mode=mode)
    disks.add("100_103", "103.png", size=(3, 2000))
    cam = disks.folder / "cam"
    for number in range(104, 113):
        disks.add(f"100_{number}", f"{number}.png")
    write_map(cam, "100_104", np.zeros(SIZE))
    write_map(cam, "100_105", np.full(SIZE, -1.0))
    write_map(cam, "100_106", np.ones((10, 10)))
    write_map(cam, "100_107", np.full(SIZE, np.nan))
    (cam / "100_108.npy").unlink()
    (cam / "100_109.npy").write_bytes((cam / "100_109.npy").read_bytes()[:999])
    (disks.folder / "photos" / "110.png").unlink()
    (disks.folder / "photos" / "111.png").write_bytes((disks.folder / "photos" / "111.png").read_bytes()[:999])
    (disks.folder / "photos" / "112.png").write_text("no photo at all")
    disks.write_list()


def test_bad_items_are_handled_or_named_and_the_rest_goes_on(tmp_path):
    disks = Disks(tmp_path, count=2)
    spoil(disks)
    command = [sys.executable, str(SCRIPT), *disks.flags(*ALL, irn_batch_size=500, irn_num_epoches=1)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "cam_to_ir_label: 8 made (3 of them empty), 0 already there, 7 refused" in result.stdout
    assert "make_ins_seg: 8 made (2 of them empty), 0 already there, 7 refused" in result.stdout
    refused = [line for line in result.stderr.splitlines() if line.startswith("make_ins_seg")]
    assert [line.split()[1] for line in refused] == [f"100_{number}" for number in range(106, 113)]
    assert "10 x 10, its photo 72 x 96" in refused[0] and "not finite" in refused[1]
    assert "Traceback" not in result.stderr
    masks = {path.stem for path in (tmp_path / "ins_seg").iterdir()}
    assert masks == {"0_0", "1_0", *(f"100_{number}" for number in range(100, 106))}
    assert not read_mask(tmp_path / "ins_seg", "100_104").any()
    assert not read_mask(tmp_path / "ins_seg", "100_105").any()
    assert read_mask(tmp_path / "ins_seg", "100_103").shape == (3, 2000)


def test_where_every_ref_is_refused_the_run_ends_in_words(tmp_path):
    disks = Disks(tmp_path, count=2)
    with pytest.raises(UserError, match="all 2 refs were refused"):
        disks.run("cam_to_ir_label_pass", image_root=tmp_path)


@pytest.mark.parametrize(
    ("passes", "more", "message"),
    [
        ((), {}, "nothing to do"),
        (("train_irn_pass",), {"irn_crop_size": 78}, "multiple of 4"),
        (("train_irn_pass",), {"irn_crop_size": 72}, "multiple of 4 from 76 on"),
        (("train_irn_pass",), {}, "holds no IR label"),
        (("make_ins_seg_pass",), {}, "res50_irn.pth is not there"),
        (("cam_to_ir_label_pass",), {"conf_bg_thres": 0.5}, "above --conf_fg_thres"),
        (("cam_to_ir_label_pass",), {"train_list": "nowhere.json"}, "nowhere.json is not there"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, passes, more, message):
    disks = Disks(tmp_path, count=2)
    with pytest.raises(UserError, match=message) as caught:
        disks.run(*passes, **more)
    assert "\n" not in str(caught.value)


def test_two_runs_in_one_work_space(tmp_path):
    disks = Disks(tmp_path, count=2)
    with owned_by_this_run(tmp_path / "work"), pytest.raises(UserError, match="another run is writing to .*work"):
        disks.run("cam_to_ir_label_pass")
    assert not (tmp_path / "ir_label").exists()


def test_flags_arrive_where_they_are_used(tmp_path, monkeypatch):
    disks = Disks(tmp_path, count=2)
    for name in disks.drawn:
        write_label(tmp_path / "ir_label", name, np.zeros(SIZE))
    given = []
    monkeypatch.setattr(run_sample_refer, "train", lambda *words: given.append(words))
    monkeypatch.setattr(run_sample_refer, "load_network", given.append)
    monkeypatch.setattr(run_sample_refer, "run_pass", lambda *words: given.append(words))
    rates = {"irn_learning_rate": 0.3, "irn_weight_decay": 0.002, "seed": 7}
    walk = {"beta": 3, "exp_times": 5, "ins_seg_bg_thres": 0.6, "save_instances": True}
    disks.run(*ALL, **rates, **walk, conf_fg_thres=0.4, conf_bg_thres=0.2, irn_weights_name="x.pth")
    (_, labels, *_), (*_, weights, schedule, _), loaded, (_, masks, *_) = given
    assert labels == LabelMaker(tmp_path / "cam", tmp_path / "ir_label", 0.4, 0.2)
    assert schedule == Schedule(2, 2, 96, 0.3, 0.002, 10, 7, 0)
    assert weights == loaded == tmp_path / "work" / "x.pth"
    assert masks == MaskMaker(tmp_path / "cam", tmp_path / "ins_seg", weights, 3, 5, 0.6, True)


def test_a_pass_without_its_folder_is_refused():
    args = build_parser().parse_args(["--train_list", "x.json", "--cam_to_ir_label_pass", "True"])
    with pytest.raises(UserError, match="needs --cam_out_dir"):
        check(args)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "truncated"])
def test_a_damaged_checkpoint_is_refused_in_words(disks, tmp_path, content):
    whole = (disks.folder / "work" / "res50_irn.pth").read_bytes()
    (tmp_path / "damaged.pth").write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    with pytest.raises(UserError, match="is damaged or holds more than tensors"):
        load_network(tmp_path / "damaged.pth")
