"""The three passes as a user runs them: results, starting over, resuming, bad input, several processes."""

import copy
import json
import os
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

from dataset.artifacts import read_label, read_map, read_mask, write_label, write_map, write_names
from IRNet import cam_to_ir_label, train_irn
from IRNet.run_sample_refer import build_parser, check, run, start_a_process_per_gpu
from tests.processes import run_processes
from utils.errors import ResumeError, UserError, WriteError
from utils.files import lock_folder

SCRIPT = Path(__file__).parent.parent / "IRNet" / "run_sample_refer.py"
SIZE = (72, 96)
STEPS = ("cam_to_ir_label", "train_irn", "make_ins_seg")
ALL = LABELS, TRAINING, MASKS = [f"{step}_pass" for step in STEPS]
LABEL_FLAGS = {"conf_fg_thres": 0.31, "conf_bg_thres": 0.12}
TRAINING_FLAGS = {"irn_learning_rate": 0.09, "irn_weight_decay": 0.002, "seed": 7, "irn_crop_size": 96}
TRAINING_FLAGS |= {"irn_batch_size": 4, "irn_num_epoches": 2, "backbone": "resnet-toy", "irn_weights_name": "x.pth"}
# After four steps of training a long walk finds few edges.
MASK_FLAGS = {"beta": 9.0, "exp_times": 2, "ins_seg_bg_thres": 0.7, "save_instances": True}
pytestmark = pytest.mark.usefixtures("one_thread")


class Disks:
    """A folder with photos of a disk each and their response maps, and the flags to run IRNet on it."""

    def __init__(self, folder: Path, count: int = 10):
        self.folder, self.images, self.drawn = folder, {}, {}
        for index in range(count):
            self.add(f"{index}_{index // 2}", f"{index // 2}.png")  # two refs per photo

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
        write_names(self.folder / "toy_names.json", self.images)

    def flags(self, *passes: str, **more: object) -> list[str]:
        files = {"cam_out_dir": "cam", "ir_label_out_dir": "ir_label", "ins_seg_out_dir": "ins_seg"}
        files |= {"work_space": "work", "train_list": "toy_names.json", "image_root": "photos"}
        flags = {flag: self.folder / name for flag, name in files.items()} | dict.fromkeys(passes, "True")
        flags |= LABEL_FLAGS | TRAINING_FLAGS | MASK_FLAGS | {"num_workers": 0} | more
        flags = {flag: value for flag, value in flags.items() if value is not None}
        return [f"--{flag}" if value is True else f"--{flag}={value}" for flag, value in flags.items()]

    def run(self, *passes: str, **more: object) -> None:
        args = build_parser().parse_args(self.flags(*passes, **more))
        check(args)
        run(args)

    def contents(self, *folders: str) -> dict[str, bytes]:
        paths = [path for folder in folders for path in (self.folder / folder).iterdir()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / "work" / "x.pth", weights_only=True)["network"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder on which all passes have run once; tests that change it take a copy, `disks`."""
    disks = Disks(tmp_path_factory.mktemp("disks"))
    disks.run(*ALL)
    return disks


@pytest.fixture
def disks(finished, tmp_path):
    """A copy elsewhere, and without the times of modification: it can be resumed all the same."""
    moved = copy.copy(finished)
    moved.folder = tmp_path / "copy"
    shutil.copytree(finished.folder, moved.folder, copy_function=shutil.copy)
    return moved


def test_every_pass_writes_its_files(finished):
    """The instances, as COCO's run lengths, make up the mask; the stamps hold the flags as the passes got them."""
    work, shares = finished.folder / "work", []
    for name, disk in finished.drawn.items():
        label, mask = read_label(finished.folder / "ir_label", name), read_mask(finished.folder / "ins_seg", name)
        assert set(np.unique(label)) <= {0, 1, 255} and label.shape == mask.shape == SIZE
        assert ((label == 1) & disk).sum() / (label == 1).sum() > 0.9 and ((label == 0) & disk).mean() < 0.02
        assert (mask & disk).sum() / (mask | disk).sum() > 0.5  # after four steps of training
        parts = json.loads((finished.folder / "ins_seg" / f"{name}.json").read_text())
        assert (np.any([coco_mask.decode(part["segmentation"]) for part in parts], axis=0) == mask).all()
        assert max(part["score"] for part in parts) == pytest.approx(1)
        shares.append(mask.mean())
    mean = pytest.approx(np.mean(shares), abs=1e-6)
    summary = json.loads((work / "pseudo_masks.json").read_text())
    assert summary == {"listed": 10, "masks": 10, "empty": 0, "mean_covered": mean}
    with Image.open(work / "pseudo_masks.png") as sheet:
        assert sheet.width > 1900
    content = torch.load(work / "x.pth", weights_only=True)
    assert content.keys() == {"backbone", "network"} and content["network"]["mean_displacement"].abs().sum() > 0
    labels, training, masks = (json.loads((work / f"{step}.json").read_text()) for step in STEPS)
    assert LABEL_FLAGS.items() <= labels.items() and MASK_FLAGS.items() <= masks.items()
    assert {*TRAINING_FLAGS.values()} <= {*training.values()}


def test_a_run_starts_over(disks, capsys):
    """With other thresholds, other response maps and another seed nothing of the earlier run is left."""
    labels, masks, weights = disks.contents("ir_label"), disks.contents("ins_seg"), disks.weights()
    for name in disks.drawn:
        write_map(disks.folder / "cam", name, np.roll(read_map(disks.folder / "cam", name), 20, axis=1))
    (disks.folder / "cam" / "1_0.npy").unlink()
    disks.run(*ALL, seed=1, conf_fg_thres=0.5, ins_seg_bg_thres=0.9, save_instances=None)
    found = disks.contents("ir_label", "ins_seg")
    assert found.keys() == {name for name in labels | masks if name.endswith("png") and "/1_0" not in name}
    assert not set(found.values()) & {*labels.values(), *masks.values()}
    assert not torch.equal(disks.weights()["edge_branch.logit.weight"], weights["edge_branch.logit.weight"])
    assert "make_ins_seg: 9 made (0 empty), 0 kept, 1 refused" in capsys.readouterr().out


def test_resume_keeps_what_is_there_and_makes_what_is_missing(disks, capsys):
    before = disks.contents("ir_label", "ins_seg", "work")
    times = {path.name: path.stat().st_mtime_ns for path in (disks.folder / "ins_seg").iterdir()}
    (disks.folder / "ins_seg" / "4_2.png").unlink()
    (disks.folder / "work" / "pseudo_masks.json").unlink()
    disks.run(*ALL, resume=True)
    printed = capsys.readouterr().out
    assert "cam_to_ir_label: 0 made (0 empty), 10 kept, 0 refused" in printed
    assert "x.pth is finished and kept" in printed
    assert "make_ins_seg: 1 made (0 empty), 9 kept, 0 refused" in printed
    assert before == disks.contents("ir_label", "ins_seg", "work")
    changed = {p.name for p in (disks.folder / "ins_seg").iterdir() if p.stat().st_mtime_ns != times[p.name]}
    assert changed == {"4_2.png", "4_2.json"}
    (disks.folder / "work" / "make_ins_seg.json").unlink()
    disks.run(MASKS, resume=True)  # without a stamp nobody knows what the masks were made from
    assert "make_ins_seg: 10 made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "change", "difference"),
    [
        (LABELS, {"conf_fg_thres": 0.4}, "conf_fg_thres 0.31, not 0.4"),
        (LABELS, "cam/3_1.npy", "other response maps"),
        (TRAINING, {"irn_batch_size": 5}, "batch_size 4, not 5"),
        (TRAINING, "ir_label/3_1.png", "other IR labels"),
        (MASKS, {"save_instances": None}, "save_instances True, not False"),
        (MASKS, {"part": "peak"}, "part all, not peak"),
        (MASKS, "cam/3_1.npy", "other response maps"),
        (MASKS, "work/x.pth", "another checkpoint"),
    ],
)
def test_resuming_from_something_else_is_refused_by_name(disks, step, change, difference):
    flags = change if isinstance(change, dict) else {}
    if not flags:  # the same name, size and time with one other bit
        path, time = disks.folder / change, (disks.folder / change).stat().st_mtime_ns
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
    before = disks.contents("ir_label", "ins_seg", "work")
    with pytest.raises(
        UserError if flags else ResumeError,
        match=f"it was started with {difference}; run without --resume to start over",
    ):
        disks.run(step, resume=True, **flags)
    assert before == disks.contents("ir_label", "ins_seg", "work")


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(disks, monkeypatch):
    """Also where an earlier run with another threshold had finished."""
    original, part = train_irn.train_one_epoch, disks.folder / "work" / "x.pth.part"

    def interrupted(*words):
        if words[3] == 1:  # the epoch
            raise KeyboardInterrupt
        original(*words)

    def interrupt():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(train_irn, "train_one_epoch", interrupted)
            disks.run(*ALL, conf_fg_thres=0.5)
        assert part.exists() and not (disks.folder / "work" / "x.pth").exists()

    interrupt()
    disks.run(*ALL, conf_fg_thres=0.5, resume=True)
    assert not part.exists()
    resumed, weights = disks.contents("ir_label", "ins_seg"), disks.weights()
    interrupt()
    part.write_bytes(part.read_bytes()[:999])
    with pytest.raises(UserError, match="pth.part is damaged, or holds more than tensors; run without --resume"):
        disks.run(*ALL, conf_fg_thres=0.5, resume=True)
    disks.run(*ALL, conf_fg_thres=0.5)
    assert resumed == disks.contents("ir_label", "ins_seg")
    assert all(torch.equal(value, weights[name]) for name, value in disks.weights().items())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_leaves_out_what_does_not_fit_and_without_anything_else_writes_no_checkpoint(
    tmp_path, workers, capsys
):
    disks = Disks(tmp_path, count=4)
    for name in disks.drawn:
        write_label(tmp_path / "ir_label", name, np.zeros(SIZE if name == "2_1" else (4, 5)))
    disks.run(TRAINING, num_workers=workers)
    printed = capsys.readouterr()
    assert "train_irn: 0_0 refused: its map is 4 x 5, its photo 72 x 96" in printed.err
    assert printed.err.count("refused") == 3 and (tmp_path / "work" / "x.pth").exists()
    (tmp_path / "photos" / "1.png").write_bytes((tmp_path / "photos" / "1.png").read_bytes()[:999])
    with pytest.raises(UserError, match="train_irn: 4 refs were refused; the lines above say why"):
        disks.run(TRAINING, num_workers=workers)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {".lock", "train_irn.json"}


def test_photos_that_are_not_quite_of_the_annotated_size_and_large_ones(tmp_path, capsys):
    """A row less, half the size, and the other way round; labels and masks have the size of the response maps."""
    disks, photos = Disks(tmp_path, count=6), tmp_path / "photos"
    disks.add("6_3", "3.png", size=(1200, 1600))
    for number, size in enumerate([(SIZE[1], SIZE[0] - 1), (SIZE[1] // 2, SIZE[0] // 2), SIZE]):
        with Image.open(photos / f"{number}.png") as photo:
            photo.resize(size).save(photos / f"{number}.png")
    disks.run(*ALL)
    printed = capsys.readouterr()
    assert "cam_to_ir_label: 5 made (0 empty), 0 kept, 2 refused" in printed.out
    assert "make_ins_seg: 5 made (0 empty), 0 kept, 2 refused" in printed.out
    assert "4_2 refused: its map is 72 x 96, its photo 96 x 72; check --image_root" in printed.err
    for name in ("0_0", "1_0", "2_1", "3_1", "6_3"):
        drawn = disks.drawn[name]
        label, mask = read_label(tmp_path / "ir_label", name), read_mask(tmp_path / "ins_seg", name, drawn.shape)
        assert label.shape == drawn.shape and ((label == 1) & drawn).sum() / (label == 1).sum() > 0.85
        parts = json.loads((tmp_path / "ins_seg" / f"{name}.json").read_text())
        assert (np.any([coco_mask.decode(part["segmentation"]) for part in parts], axis=0) == mask).all()


def test_two_processes_with_loader_processes_make_what_one_makes(disks):
    """IR labels and masks to the byte; the checkpoint up to rounding, so those masks are compared that come from it."""
    report = disks.folder / "work" / "pseudo_masks.json"
    labels, weights, summary = disks.contents("ir_label"), disks.weights(), json.loads(report.read_text())
    run_processes(SCRIPT, *disks.flags(*ALL, num_workers=2))
    assert disks.contents("ir_label") == labels
    for name, value in disks.weights().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-3 * float(weights[name].abs().max()))
    two = disks.contents("ins_seg")
    assert json.loads(report.read_text()) == summary
    disks.run(MASKS)
    assert disks.contents("ins_seg") == two and json.loads(report.read_text()) == summary


def test_several_gpus_have_a_process_each(monkeypatch):
    started = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(sys, "argv", ["IRNet/run_sample_refer.py", "--seed", "1"])
    start_a_process_per_gpu()
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # as torchrun sets them
        monkeypatch.setenv(name, "0")
    start_a_process_per_gpu()
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", *sys.argv]
    assert started == [(sys.executable, [sys.executable, *words])]


def test_bad_files_are_handled_or_named_and_the_rest_is_done(tmp_path):
    disks, cam, photos = Disks(tmp_path, count=2), tmp_path / "cam", tmp_path / "photos"
    disks.add("100_100", "100.jpg", mode="L")
    disks.add("100_101", "101.png", mode="RGBA")
    disks.add("100_102", "102.jpg", mode="CMYK")
    disks.add("100_103", "103.png", size=(3, 2000))
    for number in range(104, 113):
        disks.add(f"100_{number}", f"{number}.png")
    write_map(cam, "100_104", np.zeros(SIZE))
    write_map(cam, "100_105", np.full(SIZE, -1.0))
    write_map(cam, "100_106", np.ones((10, 10)))
    write_map(cam, "100_107", np.full(SIZE, np.nan))
    (cam / "100_108.npy").unlink()
    (cam / "100_109.npy").write_bytes((cam / "100_109.npy").read_bytes()[:999])
    (photos / "110.png").unlink()
    (photos / "111.png").write_bytes((photos / "111.png").read_bytes()[:999])
    (photos / "112.png").write_text("no photo at all")
    command = [sys.executable, SCRIPT, *disks.flags(*ALL, irn_batch_size=500, irn_num_epoches=1)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "cam_to_ir_label: 8 made (4 empty), 0 kept, 7 refused" in result.stdout
    assert "make_ins_seg: 8 made (2 empty), 0 kept, 7 refused" in result.stdout
    refused = [line for line in result.stderr.splitlines() if line.startswith("make_ins_seg")]
    assert [line.split()[1] for line in refused] == [f"100_{number}" for number in range(106, 113)]
    assert "10 x 10, its photo 72 x 96" in refused[0] and "finite numbers" in refused[1]
    assert "Traceback" not in result.stderr
    masks = {path.stem: read_mask(tmp_path / "ins_seg", path.stem) for path in (tmp_path / "ins_seg").iterdir()}
    assert masks.keys() == {"0_0", "1_0", *(f"100_{number}" for number in range(100, 106))}
    assert not masks["100_104"].any() and not masks["100_105"].any() and masks["100_103"].shape == (3, 2000)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_written_ends_the_run(tmp_path, workers):
    disks = Disks(tmp_path, count=4)
    (tmp_path / "ir_label").write_text("no folder")
    with pytest.raises(WriteError, match="^cannot write .*/0_0.png: .*; check folder and free space$"):
        disks.run(LABELS, num_workers=workers)


def out_of_gpu_memory(_):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("build", [out_of_gpu_memory, lambda _: torch.empty(1 << 60), lambda _: np.empty(1 << 55)])
def test_refs_that_need_too_much_memory_are_refused_and_if_all_are_the_run_fails(tmp_path, monkeypatch, capsys, build):
    disks = Disks(tmp_path, count=2)
    monkeypatch.setattr(cam_to_ir_label, "DenseCRF", build)
    with pytest.raises(UserError, match="all 2 refs were refused"):
        disks.run(LABELS)
    assert "cam_to_ir_label: 1_0 refused: " in (told := capsys.readouterr().err)
    assert told.count("0.png takes more memory than there is") == 2


@pytest.mark.parametrize(
    ("passes", "more", "message"),
    [
        ((), {}, "nothing to do"),
        ((TRAINING,), {"irn_crop_size": 78}, "not a multiple of 4"),
        ((TRAINING,), {"irn_crop_size": 72}, "not a multiple of 4 that is 76 or more"),
        ((TRAINING,), {}, "holds no IR label"),
        ((MASKS,), {}, "x.pth does not exist; make it with --train_irn_pass True"),
        ((LABELS,), {"cam_out_dir": None}, "--cam_to_ir_label_pass needs --cam_out_dir"),
        ((LABELS,), {"conf_bg_thres": 0.5}, "above --conf_fg_thres"),
        ((LABELS,), {"train_list": "nowhere.json"}, "nowhere.json does not exist"),
        ((LABELS,), {"image_root": "nowhere"}, "nowhere holds no photo of .*toy_names.json; check --image_root"),
        ((LABELS,), {"cam_out_dir": "nowhere"}, "nowhere holds no response map"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, passes, more, message):
    disks = Disks(tmp_path, count=2)
    with pytest.raises(UserError, match=message) as caught:
        disks.run(*passes, **more)
    assert "\n" not in str(caught.value)


def test_two_runs_in_one_work_space(tmp_path):
    disks = Disks(tmp_path, count=2)
    with lock_folder(tmp_path / "work"), pytest.raises(UserError, match="another run is writing to .*work"):
        disks.run(LABELS)
    assert not (tmp_path / "ir_label").exists()
