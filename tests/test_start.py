"""How scripts end: Ctrl-C, a closed pipe, shared memory that is full, text that is not Unicode, odd environments."""

import json
import os
import re
import signal
import sys
import time

import pytest
from PIL import Image

from dataset.checks import checked_sentence
from tests.conftest import ROOT, data_words, train_words
from tests.processes import Started

IMPORT = "from utils.start import run_script; import os, signal, sys, time\n"
FOLDERS = [ROOT, *(ROOT / name for name in ("scripts", "IRNet", "toy", "benchmarks"))]
SCRIPTS = {file: file.read_text(encoding="utf-8") for folder in FOLDERS for file in sorted(folder.glob("*.py"))}
SCRIPTS = {file: source for file, source in SCRIPTS.items() if "run_script(main" in source}


@pytest.fixture
def start(tmp_path):
    """Lines of code as a script."""

    def start(lines, *words):
        (tmp_path / "script.py").write_text(IMPORT + lines)
        return Started([tmp_path / "script.py", *words])

    return start


def test_scripts_import_what_handles_ctrl_c_before_all_that_takes_time():
    assert len(SCRIPTS) > 12
    for file, source in SCRIPTS.items():
        before = source.split("from utils.start import run_script")[0]
        assert set(re.findall(r"^(?:import|from) (\w+)", before, re.MULTILINE)) <= sys.stdlib_module_names, file


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
def test_ctrl_c_ends_quietly(lines, start):
    process = start(lines)
    assert (*process.communicate(timeout=60), process.returncode) == ("", "", 130)


def test_ctrl_c_in_a_training_with_workers(world, tmp_path):
    """A terminal sends it to the workers, too."""
    words = train_words(world, tmp_path, "--num_workers", "2", "--epoch", "1000")
    process = Started(["train_stage1.py", *words])
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
        process = Started(words, stdout=writer)
        os.close(writer)
        return process.communicate(timeout=200)[1], process.returncode

    assert unread("train_stage1.py", *train_words(world, tmp_path, "--epoch", "1")) == ("", 0)
    assert (tmp_path / "ckpt_last.pth").is_file()
    assert unread("validate.py", *data_words(world), "--output", trained[0]) == ("", 141)
    assert unread("validate.py", "--help") == ("", 141)


SMALL_SHARED_MEMORY = """
import ctypes, runpy
mounts = f"mount --make-rprivate / && mount -t tmpfs -o size={sys.argv[1]} tmpfs /dev/shm"
if ctypes.CDLL(None).unshare(0x20000) or os.system(mounts):  # mounts of its own: CLONE_NEWNS
    sys.exit(99)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")"""


@pytest.mark.parametrize("script", ["train_stage1.py", "validate.py"])
@pytest.mark.parametrize("size", ["4k", "200k"])  # for not even the workers' semaphores; for some batches
def test_shared_memory_that_is_full_is_named(script, size, world, tmp_path, trained, start):
    words = train_words(world, tmp_path) if script == "train_stage1.py" else data_words(world)
    words += ["--output", trained[0]] * (script == "validate.py")
    process = start(SMALL_SHARED_MEMORY, size, script, *words, "--num_workers", "2", "--size", "224")
    _, errors = process.communicate(timeout=100)
    if process.returncode == 99:
        pytest.skip("mounting a small /dev/shm is not allowed here")
    last = f"{script}: shared memory (/dev/shm) is full; use --num_workers 0, or docker run --shm-size=2g"
    assert (process.returncode, errors.splitlines()) == (2, [last])


def test_a_worker_that_the_system_kills_is_named(start):
    lines = """
from torch.utils.data import DataLoader
class Killed(list):
    def __getitem__(self, index): os.kill(os.getpid(), signal.SIGKILL)
run_script(lambda: list(DataLoader(Killed([1]), num_workers=1)))"""
    process = start(lines)
    _, errors = process.communicate(timeout=60)
    assert (len(errors.splitlines()), process.returncode) == (1, 2), errors
    assert "the system ended a process that reads photos" in errors


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("torch.empty(1 << 60)", r"there is too little memory \(4611686018427387904 bytes more were asked for\); use "),
        ("np.empty(1 << 55)", r"there is too little memory \(256\. PiB more were asked for\); use "),
        ("list(DataLoader(Vast([1]), num_workers=1))", "there is too little memory .*; use smaller batches or photos"),
        ("load_in_little_memory()", ".*/large.pth is damaged, or takes more memory than there is; train it$"),
    ],
)
def test_memory_that_is_full_is_named(start, tmp_path, lines, message):
    process = start(
        f"""
import resource
import numpy as np
import torch
from torch.utils.data import DataLoader
from utils.checkpoint import load_checkpoint, save_checkpoint
class Vast(list):
    def __getitem__(self, index): return torch.empty(1 << 60)
def load_in_little_memory():
    torch.set_num_threads(1)
    save_checkpoint("{tmp_path}/large.pth", {{"x": torch.zeros(1 << 28, dtype=torch.uint8)}})
    size = os.sysconf("SC_PAGE_SIZE") * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 26), -1))
    load_checkpoint("{tmp_path}/large.pth", "train it")
run_script(lambda: {lines} and None)"""
    )
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 2 and re.fullmatch(f"script.py: {message}.*\n", errors), errors


def test_text_that_is_not_unicode_is_read_printed_and_reported(trained, tmp_path):
    assert checked_sentence("half \ud83d, whole \U0001f600", "here") == "half \ufffd, whole \U0001f600"
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / os.fsdecode(b"\xe9.png"))
    line = {"image": os.fsdecode(b"\xe9.png"), "sentences": ["half \ud83d"], "mask": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    (root / "val.jsonl").write_text(json.dumps(line))
    words = ["--dataset", "jsonl", "--data_root", root, "--size", "64", "--num_workers", "0", "--output", trained[0]]
    process = Started(["validate.py", *words, "--report", root / "report"])
    printed, errors = process.communicate(timeout=100)
    assert (errors, process.returncode) == ("", 0)
    assert "caf\\udce9/report/report.html" in printed
    assert "half \ufffd" in (root / "report" / "report.html").read_text(encoding="utf-8")
    process = Started(["validate.py", *words, "--data_root", f"{root}/nowhere"])
    nowhere = f"the data folder {tmp_path}/caf\ufffd/nowhere is not there; "
    assert process.communicate(timeout=100)[1].startswith(f"validate.py: {nowhere}")


def test_variables_of_a_job_system_do_not_make_a_group_of_processes(world, trained):
    environment = {"RANK": "0", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": ""}
    process = Started(["validate.py", *data_words(world), "--output", trained[0]], environment=environment)
    assert (process.communicate(timeout=100)[1], process.returncode) == ("", 0)


def test_scripts_start_without_docstrings(start):
    """As with `python -OO`, which would compile torch, too."""
    files = [str(file) for file, source in SCRIPTS.items() if "Parser(" in source or "build_parser(" in source]
    lines = f"""
from importlib.machinery import SourceFileLoader
def code(file):
    return compile(SourceFileLoader("", file).get_data(file), file, "exec", dont_inherit=True, optimize=2)
SourceFileLoader.get_code = lambda self, name: code(self.path)
for file in {files}:
    sys.argv = [file, "--help"]
    try:
        exec(code(file), {{"__name__": "__main__", "__file__": file}})
    except SystemExit as end:
        assert not end.code, file"""
    process = start(lines)
    printed, errors = process.communicate(timeout=100)
    assert (errors, process.returncode, printed.count("usage: ")) == ("", 0, len(files))
