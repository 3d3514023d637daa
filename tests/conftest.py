import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch

from clip import build_clip
from model.scorer import Scorer
from model.stage1 import ResponseNetwork
from model.stage2 import SegmentationNetwork
from tests.golden import golden_clip, load_golden
from tests.processes import ROOT, Started
from toy.layouts import write_refcocog, write_referit
from toy.photos import make_photos
from utils.memory import keep_freed_memory, return_freed_memory

SMALL = ["--size", "64", "--num_workers", "0"]
keep_freed_memory()
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start; here torch has read it, see `one_thread`
signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background, where processes would ignore it
GPU = dict(os.environ)  # for processes of tests that need a GPU; all others run on CPUs, where they are exact
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.keywords and not Path("/dev/nvidiactl").exists():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="module", autouse=True)
def threads():
    """A module's tests, and IRNet's passes in them, may choose the number of torch's threads; the next starts anew.

    So it does with memory, of which the tests in two processes take 5 GB each.
    """
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    return_freed_memory()


@pytest.fixture(scope="module")
def one_thread(threads):
    """For the small networks of a module, which are faster so."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_rn50():
    return golden_clip("RN50")


@pytest.fixture(scope="session")
def golden_scorer():
    return Scorer(golden_clip("ViT-B/32"))


@pytest.fixture(scope="session")
def golden_stage1():
    """The published stage-1 network with golden weights. A test that changes it takes a copy."""
    return load_golden(ResponseNetwork(build_clip("RN50", pretrained=False)), stage=1)


@pytest.fixture(scope="session")
def golden_stage2():
    """The published stage-2 network with golden weights. A test that changes it takes a copy."""
    return load_golden(SegmentationNetwork(build_clip("RN50", pretrained=False)), stage=2)


@pytest.fixture(scope="session")
def toy_stage1():
    """A small response network with random weights."""
    torch.manual_seed(0)
    return ResponseNetwork(build_clip("toy", pretrained=False), hidden_dim=32).eval()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A data folder with a small toy world in RefCOCOg's layout and in ReferIt's."""
    root = tmp_path_factory.mktemp("world")
    write_refcocog(root, make_photos(7, {"train": 4, "val": 2, "test": 3}))
    write_referit(root / "referit", make_photos(7, {"train": 4, "val": 0, "test": 2}))
    return root


def data_words(world):
    return ["--dataset", "refcocog", "--splitBy", "umd", "--refer_data_root", str(world), *SMALL]


def run(script, *words, monkeypatch, capsys, folder=ROOT):
    """Run a script in this process, in `folder`; its exit status and what it printed."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    monkeypatch.chdir(folder)
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def script(monkeypatch, capsys):
    return lambda *words: run(*words, monkeypatch=monkeypatch, capsys=capsys)


def train_words(world, output, *more):
    network = ["--backbone", "toy", "--hidden_dim", "32"]
    schedule = ["--test_split", "val", "--batch_size", "4", "--epoch", "2"]
    return [*data_words(world), *network, *schedule, "--output", str(output), *more]


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    """A stage-1 training in a process of its own."""
    output = tmp_path_factory.mktemp("stage1")
    process = Started(["train_stage1.py", *train_words(world, output, "--board_folder", output / "board")])
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output, printed
