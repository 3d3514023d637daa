"""A full disk and a read-only folder: one clear line, status 2, and what was there stays."""

import subprocess

import numpy as np
import pytest

from dataset.artifacts import write_map
from tests.conftest import data_words, train_words
from utils.errors import WriteError
from utils.files import replacing

SIZE = 3 << 20  # bytes of the small disk; a checkpoint of the small network takes more


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB; `remount` changes its options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def fill(disk):
    """Leave 4 KB."""
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(SIZE - 4096 - sum(f.stat().st_size + 4096 for f in disk.rglob("*"))))


def refused(status, told, words):
    assert status == 2, told
    assert words in told.splitlines()[-1], told
    assert "Traceback" not in told


@pytest.mark.parametrize("prepare", [fill, read_only], ids=["full", "read-only"])
def test_a_checkpoint_map_mask_and_report(trained, world, small_disk, script, prepare):
    before = {"stage1/ckpt_last.pth": b"the last one", "cam/0_1.npy": b"a map", "f.json": b"{}"}
    for name, content in before.items():
        (small_disk / name).parent.mkdir(exist_ok=True)
        (small_disk / name).write_bytes(content)
    prepare(small_disk)
    status, _, told = script("train_stage1.py", *train_words(world, small_disk / "stage1"))
    refused(status, told, "cannot write")
    words = [*data_words(world), "--test_split", "train", "--output", trained[0]]
    status, _, told = script("validate.py", *words, "--cam_save_dir", small_disk / "cam")
    refused(status, told, f"cannot write {small_disk}/cam/0_1.npy: ")
    if prepare is read_only:
        status, _, told = script("validate.py", *words, "--json", small_disk / "f.json")
        refused(status, told, f"cannot write {small_disk}/f.json: Read-only file system; check folder and free space")
    assert {name: (small_disk / name).read_bytes() for name in before} == before
    assert not list(small_disk.rglob("*.tmp"))


def test_a_name_that_is_too_long_is_refused_in_words(tmp_path):
    with (
        pytest.raises(WriteError, match="File name too long; check folder and free space"),
        replacing(tmp_path / ("a" * 300)),
    ):
        pass


def test_pseudo_masks_end_at_the_first_that_cannot_be_written(world, small_disk, tmp_path, script):
    """A disk that is full is no fault of a single ref: nothing is refused one by one, and the run does not end well."""
    photo = sorted((world / "train2014").iterdir())[0]
    (tmp_path / "toy_names.json").write_text('["0_1"]')
    (tmp_path / "toy_images.json").write_text(f'{{"0_1": "{photo.name}"}}')
    from PIL import Image

    with Image.open(photo) as image:
        write_map(tmp_path / "cam", "0_1", np.ones((image.height, image.width)))
    read_only(small_disk)
    words = [
        "--train_list",
        tmp_path / "toy_names.json",
        "--cam_out_dir",
        tmp_path / "cam",
        "--work_space",
        tmp_path / "work",
        "--image_root",
        photo.parent,
    ]
    words += ["--ir_label_out_dir", small_disk / "ir_label", "--cam_to_ir_label_pass", "True", "--num_workers", "0"]
    status, _, told = script("IRNet/run_sample_refer.py", *words)
    refused(status, told, f"cannot write {small_disk}/ir_label/0_1.png: Read-only file system")
