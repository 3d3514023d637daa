"""The benchmarks compare equal things, on small networks, and the estimate's arithmetic by hand."""

import json

import pytest
import torch

from benchmarks.__main__ import COLUMNS, ROWS
from benchmarks.estimate import Counts, Resources, available, durations, estimate
from benchmarks.naive_tris import as_published
from benchmarks.timing import Pair, Setting, compare, full_size
from benchmarks.tris import random_network, stage1_step


@pytest.fixture
def small(tmp_path):
    return Setting(
        tmp_path,
        torch.device("cpu"),
        batch_size=3,
        irn_batch_size=2,
        backbone="toy",
        scorer="toy-ViT",
        hidden_dim=32,
        input_size=96,
        photo_size=(48, 64),
        irn_backbone="resnet-toy",
        crop_size=96,
        walk_size=(9, 12),
        masked_photo_size=(40, 56),
    )


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def difference(pair):
    return compare(Pair(pair.ours, pair.straightforward, repeats=1))["max_difference"]


@pytest.mark.parametrize("row", ["stage1_step", "stage2_step", "evaluate_1", "evaluate_3", "prms_1", "prms_3"])
def test_the_straightforward_way_gives_the_same_in_float64(row, small, float64):
    """Losses and gradients of training; maps and outcomes of evaluation, which are float32."""
    assert difference(ROWS[row](small)) < (1e-9 if row.startswith("stage") else 1e-6)


@pytest.mark.parametrize("row, tolerance", [("loading", 0), ("crf", 1e-5), ("walk", 1e-4), ("pseudo_mask", 0)])
def test_the_straightforward_way_gives_the_same_in_float32(row, tolerance, small):
    assert difference(ROWS[row](small)) <= tolerance


def test_the_straightforward_way_does_the_needless_work(small):
    pair = stage1_step(small)
    pair.straightforward()
    scorer = pair.straightforward.args[0].criterion.scorer
    assert all(p.grad is not None for name, p in scorer.clip.named_parameters() if name != "logit_scale")
    network, calls = as_published(random_network(small, 2), small.input_size), []
    network.backbone.visual.attnpool.register_forward_hook(lambda *_: calls.append(1))
    network(torch.zeros(1, 3, 96, 96), torch.zeros(1, 20, dtype=torch.int64))
    assert calls == [1]


def test_a_row_by_hand():
    """A clock that runs 1, 2, 3, ... seconds on at every look: each call lasts 1 s more than the one before."""
    looks = iter([0, 9, 10, 12, 12, 13, 20, 28, 30, 32])
    row = compare(
        Pair(
            lambda: [[torch.tensor([1.0, 2.0])], [torch.tensor(8)]],
            lambda: [[torch.tensor([1.0, 4.0])], [torch.tensor(8)]],
            repeats=2,
        ),
        lambda: next(looks),
    )
    assert row == {
        "ours_s": 1.5,
        "straightforward_s": 5,
        "ratio": 5 / 1.5,
        "ratio_min": 2,
        "ratio_max": 4,
        "max_difference": 0.5,
    }


def test_the_command_writes_the_table(tmp_path, script):
    words = ["--only", "loading", "--json", tmp_path / "table.json"]
    status, printed, told = script("benchmarks/__main__.py", *words)
    assert status == 0, told
    table = json.loads((tmp_path / "table.json").read_text())
    assert table.keys() == {"loading"}
    assert table["loading"].keys() == set(COLUMNS)
    assert table["loading"]["ratio_min"] <= table["loading"]["ratio"] <= table["loading"]["ratio_max"]
    assert "loading" in printed and "1 of 1" in told


def test_a_wrong_row_is_one_line(script):
    status, _, told = script("benchmarks/__main__.py", "--only", "stage1")
    assert status == 2
    assert len(told.splitlines()) == 1 and "stage1" in told and "stage1_step" in told


SECONDS = {
    "loading": 4.0,
    "stage1": 2.0,
    "stage2": 3.0,
    "evaluation1": 0.5,
    "evaluation2": 1.0,
    "prms": 1.5,
    "label": 6.0,
    "irn_loading": 1.0,
    "irn_step": 2.0,
    "mask": 10.0,
}
COUNTS = Counts(refs=12, photos=8, sentences=24, val_photos=2, val_sentences=4, epochs=2, irn_epochs=1)


def test_durations_on_a_cpu_by_hand():
    found = durations(SECONDS, COUNTS, Resources(gpu=False, devices=1, loaders=2, workers=2))
    assert found == {
        "train_stage1": 2 * (12 * 2 + 12 * 4 / 2 + 4 * 0.5 + 2 * 4 / 2),
        "export_maps": 24 * 1.5 + 8 * 4 / 2,
        "cam_to_ir_label": 12 * 6 / 2,
        "train_irn": 2 * 12 * 2 + 2 * 12 * 1 / 2,
        "make_ins_seg": 12 * 10 / 2,
        "train_stage2": 2 * (12 * 3 + 12 * 4 / 2 + 4 * 1 + 2 * 4 / 2),
    }


def test_durations_on_gpus_by_hand():
    """Two GPUs and eight loaders: loading (6 s an epoch) hides behind the network (12 s) but in IRNet's training."""
    found = durations(SECONDS, COUNTS, Resources(gpu=True, devices=2, loaders=8, workers=2))
    assert found["train_stage1"] == 2 * (12 * 2 / 2 + 4 * 0.5 / 2)
    assert found["export_maps"] == 24 * 1.5 / 2
    assert found["train_irn"] == 2 * 12 * 2  # on one of them
    slow = durations(SECONDS | {"loading": 40.0}, COUNTS, Resources(gpu=True, devices=2, loaders=8, workers=2))
    assert slow["export_maps"] == 8 * 40 / 8


def test_the_estimate_of_small_networks(small):
    table = estimate(small, COUNTS, available(small.device, 1))
    assert all(row["seconds"] > 0 and row["disk_bytes"] > 0 for row in table.values())
    assert table["export_maps"]["disk_bytes"] == 12 * (192 + 3 * 3 * 4 + 4 * 4)  # .npy header, scores, sizes
    assert table["total"]["seconds"] == pytest.approx(sum(table[step]["seconds"] for step in table) / 2)


@pytest.mark.gpu
def test_stage1_throughput_on_a_gpu(tmp_path):
    """Batch 48 in bf16 beside the straightforward way in float32."""
    row = compare(stage1_step(full_size(tmp_path, torch.device("cuda"))))
    print(f"stage 1: {48 / row['ours_s']:.0f} and {48 / row['straightforward_s']:.0f} images per second")
    assert row["ratio"] > 4
