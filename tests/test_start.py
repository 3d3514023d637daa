"""How scripts end: Ctrl-C, a closed pipe, shared memory that is full, text that is not Unicode, odd environments."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from dataset.checks import checked_sentence
from tests.conftest import ROOT, data_words, train_words

IMPORT = "from utils.start import run_script; import os, signal, sys, time\n"
FOLDERS = [ROOT, *(ROOT / name for name in ("scripts", "IRNet", "toy", "benchmarks"))]
SCRIPTS = {file: file.read_text(encoding="utf-8") for folder in FOLDERS for file in sorted(folder.glob("*.py"))}
SCRIPTS = {file: source for file, source in SCRIPTS.items() if "run_script(main" in source}


def start(words, **options):
    """A script in a process group of its own, as a terminal starts it."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True} | options
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, text=True, **options)


def code(lines):
    return ["-c", IMPORT + lines]


def test_scripts_import_what_handles_ctrl_c_before_all_that_takes_time():
    assert len(SCRIPTS) > 12
    for file, source in SCRIPTS.items():
        before = source.split("from utils.start import run_script")[0]
        assert set(re.findall(r"^(?:import|from) (\w+)", before, re.MULTILINE)) <= {"sys", "pathlib"}, file


@pytest.mark.parametrize(
    "lines",
    [
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",  # while the other modules are imported
        "run_script(lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60))",
        "import torch\n"
        "class File:\n"
        "    def write(self, data): os.kill(os.getpid(), signal.SIGINT)\n"
        "    def flush(self): pass\n"
        "run_script(lambda: torch.save(torch.zeros(9), File()))",  # torch raises an error of its own on top
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(1))\n"
        "run_script(lambda: os.fork() and time.sleep(60))",  # where nothing can be raised
    ],
    ids=["imports", "main", "torch.save", "fork"],
)
def test_ctrl_c_ends_quietly(lines):
    process = start(code(lines))
    assert (*process.communicate(timeout=60), process.returncode) == ("", "", 130)


def test_ctrl_c_in_a_training_with_workers(world, tmp_path):
    """A terminal sends it to the workers, too."""
    words = train_words(world, tmp_path, "--num_workers", "2", "--epoch", "1000")
    process = start(["train_stage1.py", *words])
    while not (tmp_path / "ckpt_last.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (errors, process.returncode) == ("", 130)
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_training_outlives_its_reader_and_others_end_with_it(world, tmp_path, trained):
    def unread(*words):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(words, stdout=writer)
        os.close(writer)
        return process.communicate(timeout=200)[1], process.returncode

    assert unread("train_stage1.py", *train_words(world, tmp_path, "--epoch", "1")) == ("", 0)
    assert (tmp_path / "ckpt_last.pth").is_file()
    assert unread("validate.py", *data_words(world), "--output", trained[0]) == ("", 141)
    assert unread("validate.py", "--help") == ("", 141)


@pytest.mark.parametrize("script", ["train_stage1.py", "validate.py"])
@pytest.mark.parametrize("size", ["4k", "200k"])  # for not even the workers' semaphores; for some batches
def test_shared_memory_that_is_full_is_named(script, size, world, tmp_path, trained):
    words = train_words(world, tmp_path) if script == "train_stage1.py" else data_words(world)
    words += ["--output", trained[0]] * (script == "validate.py")
    words = [sys.executable, script, *words, "--num_workers", "2", "--size", "224"]
    small = f"mount -t tmpfs -o size={size} tmpfs /dev/shm || exit 99; exec {shlex.join(map(str, words))}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", small], cwd=ROOT, capture_output=True, text=True, timeout=100)
    if done.returncode in (1, 99):
        pytest.skip("mounting a small /dev/shm is not allowed here")
    last = f"{script}: shared memory (/dev/shm) is full; use --num_workers 0, or docker run --shm-size=2g"
    assert (done.returncode, done.stderr.splitlines()) == (2, [last])


def test_a_worker_that_the_system_kills_is_named():
    lines = """
from torch.utils.data import DataLoader
class Killed(list):
    def __getitem__(self, index): os.kill(os.getpid(), signal.SIGKILL)
run_script(lambda: list(DataLoader(Killed([1]), num_workers=1)))"""
    process = start(code(lines))
    _, errors = process.communicate(timeout=60)
    assert (len(errors.splitlines()), process.returncode) == (1, 2), errors
    assert "the system ended a process that reads photos" in errors


def test_text_that_is_not_unicode_is_read_printed_and_reported(trained, tmp_path):
    assert checked_sentence("half \ud83d, whole \U0001f600", "here") == "half \ufffd, whole \U0001f600"
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / os.fsdecode(b"\xe9.png"))
    line = {"image": os.fsdecode(b"\xe9.png"), "sentences": ["half \ud83d"], "mask": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    (root / "val.jsonl").write_text(json.dumps(line))
    words = ["--dataset", "jsonl", "--data_root", root, "--size", "64", "--num_workers", "0", "--output", trained[0]]
    process = start(["validate.py", *words, "--report", root / "report"])
    printed, errors = process.communicate(timeout=100)
    assert (errors, process.returncode) == ("", 0)
    assert "caf\\udce9/report/report.html" in printed
    assert "half \ufffd" in (root / "report" / "report.html").read_text(encoding="utf-8")
    process = start(["validate.py", *words, "--data_root", f"{root}/nowhere"])
    nowhere = f"the data folder {tmp_path}/caf\ufffd/nowhere is not there; "
    assert process.communicate(timeout=100)[1].startswith(f"validate.py: {nowhere}")


def test_variables_of_a_job_system_do_not_make_a_group_of_processes(world, trained):
    environment = os.environ | {"RANK": "0", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": ""}
    process = start(["validate.py", *data_words(world), "--output", trained[0]], env=environment)
    assert (process.communicate(timeout=100)[1], process.returncode) == ("", 0)


def test_scripts_start_without_docstrings():
    files = [str(file) for file, source in SCRIPTS.items() if "Parser(" in source or "build_parser(" in source]
    lines = f"""
import runpy
for file in {files}:
    sys.argv = [file, "--help"]
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit as end:
        assert not end.code, file"""
    process = start(["-OO", *code(lines)])
    printed, errors = process.communicate(timeout=100)
    assert (errors, process.returncode, printed.count("usage: ")) == ("", 0, len(files))
