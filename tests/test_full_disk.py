"""A full disk and a read-only folder: one clear line, status 2, and what was there stays."""

import subprocess

import numpy as np
import pytest

from tests.conftest import data_words, train_words
from utils.errors import WriteError
from utils.files import atomic_write
from utils.log import TrainingLog

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
def test_what_cannot_be_written_ends_the_run(world, disk, script, prepare):
    train = ["train_stage1.py", *train_words(world, disk / "stage1", "--epoch", "1")]
    evaluate = ["validate.py", *data_words(world), "--untrained", "--backbone", "toy", "--hidden_dim", "8"]
    export = [*evaluate, "--test_split", "train", "--cam_save_dir", disk / "cam"]
    commands = [(train, "cannot write"), (export, f"cannot write {disk}/cam/0_1.npy: ")]
    if prepare is make_read_only:  # this file is so small that a full disk still takes it
        json_file = disk / "metrics.json"
        commands += [([*evaluate, "--json", json_file], f"cannot write {json_file}: Read-only file")]
    prepare(disk)
    for command, words in commands:
        status, _, printed = script(*command)
        assert status == 2, printed
        assert words in printed.splitlines()[-1]
        assert "Traceback" not in printed
    assert {name: (disk / name).read_bytes() for name in BEFORE} == BEFORE
    assert not list(disk.rglob("*.tmp"))


def test_tensorboard_on_a_full_disk_ends_the_run(disk, tmp_path, capsys):
    fill(disk)
    training_log = TrainingLog(tmp_path, str(disk / "board"), {})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # 12 KB of PNG
    with pytest.raises(WriteError, match=f"cannot write to {disk}/board: No space left on device; choose another"):
        for step in range(1000):  # written by a thread of TensorBoard's
            training_log.picture("noise", noise, step)
        training_log.close()
    assert capsys.readouterr().err == ""


def test_a_name_that_is_too_long_is_refused(tmp_path):
    file = atomic_write(tmp_path / ("a" * 300))
    with pytest.raises(WriteError, match="File name too long; check folder and free space"), file:
        pass
