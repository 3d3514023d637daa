"""The whole pipeline in one command, on a very small toy world: what it leaves, and that it goes on where it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.toy import make_photos, write_refcocog

ROOT = Path(__file__).parent.parent
FLAGS = {
    "--common": "--backbone toy --hidden_dim 16 --size 96 --num_workers 0",
    "--stage1": "--batch_size 4 --epoch 1",
    "--irnet": "--backbone resnet-toy --irn_crop_size 80 --irn_batch_size 4 --irn_num_epoches 1 --num_workers 0",
    "--stage2": "--batch_size 4 --epoch 1 --skip_missing",
}
ROWS = ["untrained", "train_stage1", "stage1", "stage1_train", "stage1_prms_train", "irnet", "pseudo_masks_train"]
ROWS += ["train_stage2", "stage2"]


def pipeline(output, world, *more, **changed):
    words = [word for flag, value in (FLAGS | changed).items() for word in (flag, value)]
    command = [sys.executable, "scripts/run_pipeline.py", "refcocog", "umd", str(output), "--data_root", str(world)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--splits", "test", *words, *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_refcocog(root, make_photos(3, {"train": 3, "val": 1, "test": 1}))
    return root


def test_from_photos_to_figures_with_a_stop_in_between(world, tmp_path):
    begun = pipeline(tmp_path, world, "--only", "untrained")
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "figures" / "untrained.json").unlink()  # not made again: the step is known to be finished
    done = pipeline(tmp_path, world)
    assert done.returncode == 0, done.stderr
    assert "untrained: finished before" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ROWS
    for name, row in results.items():
        assert row["seconds"] > 0
        assert row["peak_mb"] > 100
        assert ("mIoU" in row) == (not name.startswith(("train_", "irnet"))), name
    assert {"mIoU", "oIoU", "P@0.5", "PointM", "Hit"} <= set(results["stage2"])
    names = json.loads((tmp_path / "refcocog_train_names.json").read_text())
    assert {f"{name}.png" for name in names} == {file.name for file in (tmp_path / "ins_seg").iterdir()}

    again = pipeline(tmp_path, world)
    assert again.stdout.count("finished before") == len(ROWS)
    other = pipeline(tmp_path, world, **{"--stage1": "--batch_size 4 --epoch 2"})
    assert (other.returncode, "holds the step train_stage1 with other flags" in other.stderr) == (2, True)


def test_mistakes(world, tmp_path):
    unknown = pipeline(tmp_path, world, "--only", "stage3")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "there is no step 'stage3'; known are untrained, train_stage1" in unknown.stderr
    failing = pipeline(tmp_path, tmp_path / "nowhere")
    assert failing.returncode == 2
    assert "the data folder" in failing.stderr
    assert "the step untrained ended with status 2" in failing.stderr
    assert not (tmp_path / "results.json").exists()


def test_your_own_photos_without_any_mask(world, tmp_path):
    """From photos and sentences alone to a network of stage 2."""
    photos = sorted(file.name for file in (world / "train2014").iterdir())
    lines = [{"image": f"train2014/{name}", "sentences": [f"the {word} one", word]} for name in photos for word in "ab"]
    (world / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    command = [sys.executable, "scripts/run_pipeline.py", "jsonl", "-", str(tmp_path), "--data_root", str(world)]
    words = [word for flag, value in FLAGS.items() for word in (flag, value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--splits", "none", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stage2" / "ckpt.pth").is_file()
    assert len(list((tmp_path / "ins_seg").iterdir())) == len(lines)
