"""A full disk and a read-only folder: one clear line, status 2, and what was there stays."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from dataset.artifacts import write_map
from tests.conftest import data_words, train_words
from utils.errors import WriteError
from utils.files import atomic_write

SIZE = 3 << 20  # bytes of the small disk; a checkpoint of the small network takes more
BEFORE = {"stage1/ckpt_last.pth": b"the last one", "cam/0_1.npy": b"a map", "metrics.json": b"{}"}


@pytest.fixture
def disk(tmp_path):
    """A disk of 3 MB that holds the files of `BEFORE`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    for name, content in BEFORE.items():
        (disk / name).parent.mkdir(exist_ok=True)
        (disk / name).write_bytes(content)
    yield disk
    subprocess.run(["umount", disk], check=True)


def make_read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def fill(disk):
    """Leave 4 KB."""
    (disk / "ballast").write_bytes(bytes(SIZE - 4096 - sum(f.stat().st_size + 4096 for f in disk.rglob("*"))))


@pytest.mark.parametrize("prepare", [fill, make_read_only], ids=["full", "read-only"])
def test_what_cannot_be_written_ends_the_run(world, disk, tmp_path, script, prepare):
    photo = sorted((world / "train2014").iterdir())[0]
    (tmp_path / "toy_names.json").write_text('["0_1"]')
    (tmp_path / "toy_images.json").write_text(json.dumps({"0_1": photo.name}))
    with Image.open(photo) as image:
        write_map(tmp_path / "cam", "0_1", np.ones((image.height, image.width)))
    train = ["train_stage1.py", *train_words(world, disk / "stage1", "--epoch", "1")]
    evaluate = ["validate.py", *data_words(world), "--untrained", "--backbone", "toy", "--hidden_dim", "8"]
    export = [*evaluate, "--test_split", "train", "--cam_save_dir", disk / "cam"]
    irnet = ["IRNet/run_sample_refer.py", "--cam_out_dir", tmp_path / "cam", "--cam_to_ir_label_pass", "True"]
    irnet += ["--train_list", tmp_path / "toy_names.json", "--image_root", photo.parent, "--num_workers", "0"]
    irnet += ["--work_space", tmp_path / "work", "--ir_label_out_dir", disk / "labels"]
    commands = [(train, "cannot write"), (export, f"cannot write {disk}/cam/0_1.npy: ")]
    if prepare is make_read_only:  # these files are so small that a full disk still takes them
        json_file = disk / "metrics.json"
        commands += [([*evaluate, "--json", json_file], f"cannot write {json_file}: Read-only file")]
        commands += [(irnet, f"cannot write {disk}/labels/0_1.png: ")]
    prepare(disk)
    for command, words in commands:
        status, _, printed = script(*command)
        assert status == 2, printed
        assert words in printed.splitlines()[-1]
        assert "Traceback" not in printed
    assert {name: (disk / name).read_bytes() for name in BEFORE} == BEFORE
    assert not list(disk.rglob("*.tmp"))


def test_a_name_that_is_too_long_is_refused(tmp_path):
    file = atomic_write(tmp_path / ("a" * 300))
    with pytest.raises(WriteError, match="File name too long; check folder and free space"), file:
        pass
