"""The whole pipeline in one command, on a very small toy world: what it leaves, and that it goes on where it was."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from dataset.toy.layouts import write_refcocog
from dataset.toy.photos import make_photos
from tests.conftest import ROOT

FLAGS = {
    "--common": "--backbone toy --hidden_dim 16 --size 96 --num_workers 0",
    "--stage1": "--batch_size 4 --epoch 1",
    "--irnet": "--backbone resnet-toy --irn_crop_size 80 --irn_batch_size 4 --irn_num_epoches 1 --num_workers 0",
    "--stage2": "--batch_size 4 --epoch 1 --skip_missing",
}
ROWS = ["untrained", "train_stage1", "stage1", "stage1_train", "stage1_prms_train", "irnet", "pseudo_masks_train"]
ROWS += ["train_stage2", "stage2"]


def start(data, output, splits, *more, **changed):
    """The pipeline in a process of its own; `data`: the words that name a data set and its folder."""
    words = [word for flag, value in (FLAGS | changed).items() for word in (flag, value)]
    dataset, split_by, root = data
    command = [sys.executable, "scripts/run_pipeline.py", dataset, split_by, str(output), "--data_root", str(root)]
    return subprocess.Popen(
        [*command, "--splits", splits, *words, *more],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Exit status, output and errors."""
    printed, errors = process.communicate(timeout=300)
    return process.returncode, printed, errors


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy world, and lines that name its photos without any mask."""
    root = tmp_path_factory.mktemp("world")
    write_refcocog(root, make_photos(3, {"train": 3, "val": 1, "test": 1}))
    photos = sorted(file.name for file in (root / "train2014").iterdir())
    lines = [{"image": f"train2014/{name}", "sentences": [f"the {word} one", word]} for name in photos for word in "ab"]
    (root / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return ("refcocog", "umd", root)


@pytest.fixture(scope="module")
def whole_and_own(toy, tmp_path_factory):
    """Outputs and endings of two pipelines, side by side: of RefCOCOg, stopped once, and of photos without any mask."""
    whole, own = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("own")
    beside = start(("jsonl", "-", toy[2]), own, "none")
    status, _, errors = finish(start(toy, whole, "test", "--only", "untrained"))
    assert status == 0, errors
    (whole / "figures" / "untrained.json").unlink()  # not made again: the step is known to be finished
    return (whole, finish(start(toy, whole, "test"))), (own, finish(beside))


def test_from_photos_to_figures_with_a_stop_in_between(toy, whole_and_own):
    output, (status, printed, errors) = whole_and_own[0]
    assert status == 0, errors
    assert "untrained: finished before" in printed
    results = json.loads((output / "results.json").read_text())
    assert list(results) == ROWS
    for name, row in results.items():
        assert row["seconds"] > 0
        assert row["peak_mb"] > 100
        assert ("mIoU" in row) == (not name.startswith(("train_", "irnet"))), name
    assert {"mIoU", "oIoU", "P@0.5", "PointM", "Hit"} <= set(results["stage2"])
    names = json.loads((output / "refcocog_train_names.json").read_text())
    assert {f"{name}.png" for name in names} == {file.name for file in (output / "ins_seg").iterdir()}

    assert finish(start(toy, output, "test"))[1].count("finished before") == len(ROWS)
    status, _, errors = finish(start(toy, output, "test", **{"--stage1": "--batch_size 4 --epoch 2"}))
    assert (status, "holds the step train_stage1 with other flags" in errors) == (2, True)


def test_your_own_photos_without_any_mask(toy, whole_and_own):
    """From photos and sentences alone to a network of stage 2."""
    output, (status, _, errors) = whole_and_own[1]
    assert status == 0, errors
    assert (output / "stage2" / "ckpt.pth").is_file()
    assert len(list((output / "ins_seg").iterdir())) == len((toy[2] / "train.jsonl").read_text().splitlines())


def test_an_unknown_step(tmp_path, script):
    status, _, errors = script("scripts/run_pipeline.py", "refcocog", "umd", tmp_path, "--only", "stage1,stage3")
    assert (status, errors.count("\n")) == (2, 1)
    assert "there is no step 'stage3'; known are untrained, train_stage1" in errors


def test_a_step_that_fails_is_named_and_ends_the_pipeline(tmp_path):
    status, _, errors = finish(start(("refcocog", "umd", tmp_path / "nowhere"), tmp_path, "test"))
    assert status == 2
    assert "the data folder" in errors
    assert "the step untrained ended with status 2" in errors
    assert not (tmp_path / "results.json").exists()


SLOW_TO_END = """
import signal, sys, time
from pathlib import Path

def end(number, _):
    time.sleep(0.5)
    Path("saved").touch()
    sys.exit(1)

for kind in (signal.SIGTERM, signal.SIGINT):
    signal.signal(kind, end)
print("ready", flush=True)
time.sleep(60)
"""
ONE_STEP = """
import sys
from pathlib import Path
from scripts import run_pipeline
from utils.errors import run_script

run_pipeline.ROOT = Path(sys.argv[1])
run_script(lambda: run_pipeline._run_step(run_pipeline.Step("irnet", ["-c", sys.argv[2]]), {}, Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("kind", "send", "status"),
    [(signal.SIGTERM, os.kill, 143), (signal.SIGINT, os.killpg, 130)],
    ids=["TERM", "Ctrl-C"],
)
def test_a_signal_ends_the_step_first(kind, send, status, tmp_path):
    command = [sys.executable, "-c", ONE_STEP, tmp_path, SLOW_TO_END]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as process:
        assert "ready\n" in iter(process.stdout.readline, "")
        send(process.pid, kind)
        assert process.wait(timeout=30) == status
        assert (tmp_path / "saved").exists()
        assert process.stderr.read() == (
            "run_pipeline.py: interrupted in the step irnet; the same command goes on there\n"
        )
    assert not (tmp_path / "pipeline.json").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"irnet": {}}', '{"irnet": {"command": [], "seconds": 1.0, "peak_mb": 1}}']
)
def test_a_damaged_state(text, tmp_path, script):
    (tmp_path / "pipeline.json").write_text(text)
    status, _, errors = script("scripts/run_pipeline.py", "refcocog", "umd", tmp_path, "--only", "irnet")
    assert (status, errors.count("\n")) == (2, 1)
    assert f"{tmp_path / 'pipeline.json'} " in errors
    assert errors.endswith("; remove it, and the steps are run anew\n")


def test_a_step_that_does_not_apply_is_passed_over(tmp_path, script):
    words = ("scripts/run_pipeline.py", "jsonl", "-", tmp_path, "--only", "stage1_train, pseudo_masks_train")
    assert script(*words)[::2] == (0, "")
    assert script(*words, "--splits", "none")[0] == 0
    assert not (tmp_path / "stage1").exists()


STUBS = """
need_environment() { :; }
python() { echo "python $*"; }
"""


@pytest.fixture
def stubbed(tmp_path):
    """Runs a shell script of scripts/ in a folder where the pipeline and python only say what they were given."""
    folder = tmp_path / "scripts"
    shutil.copytree(ROOT / "scripts", folder)
    with (folder / "environment.sh").open("a") as environment:
        environment.write(STUBS)
    (folder / "run_pipeline.sh").write_text('echo "pipeline $*"\n')

    def run(name, *words):
        done = subprocess.run(["bash", folder / name, *words], capture_output=True, text=True, timeout=60)
        return (done.stdout + done.stderr).splitlines()

    return run


def test_a_seed_is_written_where_it_is_read(stubbed):
    printed = stubbed("seeds.sh", "0", "2")
    assert [line.split()[3] for line in printed if line.startswith("pipeline")] == ["output/toy", "output/toy_seed2"]
    assert printed[-1] == "python scripts/seeds_table.py output/toy/results.json output/toy_seed2/results.json"


@pytest.mark.parametrize(
    ("words", "output", "photos"),
    [
        (("refcocog", "umd"), "output/refcocog_umd", "data/train2014"),
        (("referit", "-"), "output/referit", "data/referit/images"),
        (("jsonl", "-", "--image_root", "mine"), "output/jsonl", "mine"),
    ],
)
def test_pseudo_masks_are_made_where_the_pipeline_has_them(words, output, photos, stubbed):
    (command,) = stubbed("make_pseudo_masks.sh", *words)
    assert f"--ins_seg_out_dir {output}/ins_seg --train_list {output}/{words[0]}_train_names.json" in command
    assert command.split("--image_root ")[-1].split()[0] == photos


def test_pseudo_masks_of_your_own_photos_need_their_folder(stubbed):
    told = ["make_pseudo_masks.sh: for jsonl give --image_root FOLDER, where the photos are"]
    assert stubbed("make_pseudo_masks.sh", "jsonl", "-") == told
