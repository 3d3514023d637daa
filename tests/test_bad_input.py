"""Every row of docs/bad_input.md: one line that names the thing, nothing run, nothing left, memory and time bounded."""

import shlex
import shutil
import time
from pathlib import Path

import pytest

from tests.bad_input import CASES, COMMANDS, PAGE, half_a_photo, matches, page, png_header
from tests.conftest import data_words
from utils.errors import UserError

GROWTH = 200 << 20  # bytes that reading a bad input may take at once
SECONDS = 20  # far more than any takes; what is quadratic in 1 MB takes hours


@pytest.fixture
def peak():
    """The largest size of this process since the test began, in bytes above its size then; 0 where none can be had."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return lambda: 0
    before = _status("VmRSS")
    return lambda: _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_file_is_refused(case, tmp_path, monkeypatch, peak):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    with pytest.raises(UserError) as refusal:
        case.trial(tmp_path)
    assert matches(case.line, str(refusal.value)), str(refusal.value)
    assert not (tmp_path / "RAN").exists()
    assert peak() < GROWTH
    assert time.monotonic() - began < SECONDS


@pytest.fixture
def broken(world, tmp_path):
    """A copy of the world in which one photo is cut off and one is gone."""
    root = tmp_path / "broken"
    shutil.copytree(world, root)
    photos = sorted((root / "train2014").iterdir())
    photos[0].write_bytes(photos[0].read_bytes()[:3000])
    photos[-1].unlink()
    return root


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.name)
def test_a_bad_command_is_refused(case, trained, world, broken, tmp_path, script):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "cut.jpg").write_bytes(half_a_photo())
    (tmp_path / "huge.png").write_bytes(png_header(100_000, 100_000))
    places = {"data": shlex.join(data_words(world)), "broken": shlex.join(data_words(broken))}
    places |= {"empty": empty, "trained": trained[0], "photo": next((world / "train2014").iterdir())}
    places |= {"cut": tmp_path / "cut.jpg", "huge": tmp_path / "huge.png"}
    status, _, told = script(*shlex.split(case.words.format(**places)))
    assert status == 2
    assert matches(case.line, told.removesuffix("\n")), told
    assert not [file for file in empty.rglob("*") if file.is_file() and file.name != ".lock"]


def test_a_broken_photo_in_a_worker_is_told_in_one_line_too(broken, tmp_path, script):
    words = [*data_words(broken), "--backbone", "toy", "--batch_size", "4", "--output", tmp_path / "out"]
    status, _, told = script("train_stage1.py", *words, "--num_workers", "1")
    assert status == 2
    assert matches("train_stage1.py: the photo …", told.removesuffix("\n"))


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.bad_input"
    names = [case.name for case in (*CASES, *COMMANDS)]
    assert len(names) == len(set(names)) >= 60
    assert all(case.line for case in (*CASES, *COMMANDS))
