"""The benchmarks compare equal things, here on small networks; a row of the table by hand; the command."""

import json
import mmap
from dataclasses import replace

import pytest
import torch

from benchmarks.__main__ import COLUMNS, ROWS
from benchmarks.timing import Pair, Setting, compare
from benchmarks.tris import UnfrozenStage1Criterion, as_published, random_network, random_scorer, training_step

CPU = torch.device("cpu")


@pytest.fixture
def small(tmp_path):
    networks = {"backbone": "toy", "scorer": "toy-RNS", "resnet": "resnet-toy", "hidden_dim": 32}
    sizes = {"input_size": 96, "crop_size": 96, "photo_size": (48, 64), "walk_size": (9, 12)}
    masked = (96, 160)  # large enough for two instances
    return Setting(tmp_path, CPU, 3, **networks, **sizes, masked_photo_size=masked)


@pytest.fixture
def dtype(request):
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("row", "dtype", "tolerance"),
    [
        *((row, torch.float64, 1e-9) for row in ("stage1_step", "stage2_step")),  # losses and gradients
        *((row, torch.float64, 1e-6) for row in ("evaluate_1", "evaluate_3", "prms_1", "prms_3")),  # maps are float32
        *((row, torch.float32, tolerance) for row, tolerance in (("crf", 1e-5), ("walk", 1e-3))),
        *((row, torch.float32, 0) for row in ("loading", "pseudo_mask")),
        ("predict_3", torch.float32, 1e-2),  # areas: a few pixels lie at the outline
        ("stage1_step_bf16", torch.float32, 0.1),  # bf16 keeps 8 bits
    ],
    indirect=["dtype"],
)
def test_both_ways_give_the_same(row, dtype, tolerance, small):
    pair = replace(ROWS[row](small), repeats=1, ours_per_repeat=1)
    assert compare(pair, CPU)["max_difference"] <= tolerance


@pytest.mark.parametrize("row", ["evaluate_3", "prms_3"])
def test_evaluated_masks_are_neither_empty_nor_the_whole_photo(row, small):
    maps, outcomes = ROWS[row](small).ours()
    assert len(maps) == len(outcomes) == 3
    assert all(0.05 < (response > 1e-9).float().mean() < 0.95 for response in maps)


def test_the_straightforward_way_does_the_needless_work(small):
    scorer, network, calls = random_scorer(small), as_published(random_network(small, 1), small.input_size), []
    network.backbone.visual.attnpool.register_forward_hook(lambda *_: calls.append(1))
    training_step(network, UnfrozenStage1Criterion(scorer), small)()
    assert calls == [1]
    assert all(p.grad is not None for name, p in scorer.clip.named_parameters() if name != "logit_scale")


def test_a_row_by_hand():
    """A clock read before and after each timed call: 9 s at first, then 2 s beside 1 s and 8 s beside 2 s."""
    readings = iter([0, 9, 10, 12, 12, 13, 20, 28, 30, 32])
    ours, straightforward = ([[torch.tensor([1.0, x])], [torch.tensor(8)]] for x in (2.0, 4.0))
    pair = Pair(lambda: ours, lambda: straightforward, count=6, unit="photos", repeats=2)
    row = compare(pair, CPU, lambda: next(readings))
    assert 100 < row.pop("peak_mb") < 100_000
    expected = {"ours_s": 1.5, "straightforward_s": 5, "ratio": 5 / 1.5, "ratio_min": 2, "ratio_max": 4}
    assert row == expected | {"max_difference": 0.5, "per_second": 4, "unit": "photos"}


def test_a_product_takes_a_part_of_the_peak_and_memory_is_counted():
    def product():
        memory = mmap.mmap(-1, 300_000_000)  # of its own: the process may still hold memory that tensors have left
        memory[::4096] = bytes(len(memory[::4096]))
        return [[torch.ones(256, 256) @ torch.ones(256, 256)]]

    alone = compare(Pair(lambda: [[torch.ones(1)]], None), CPU)
    row = compare(Pair(product, None), CPU)
    assert 0 < row["of_peak"] < 2
    assert row["peak_mb"] > alone["peak_mb"] + 250
    assert "of_peak" not in alone and "ratio" not in row


@pytest.mark.parametrize(("row", "count", "unit"), [("irnet_step", 3, "crops"), ("irnet_mask", 1, "photos")])
def test_rows_of_ours_alone(row, count, unit, small):
    pair = ROWS[row](small)
    assert (pair.count, pair.unit) == (count, unit)
    assert all(torch.isfinite(tensor.double()).all() for quantity in pair.ours() for tensor in quantity)


def test_the_command_writes_the_table(tmp_path, script):
    status, printed, told = script("benchmarks/__main__.py", "--only", "loading", "--json", tmp_path / "table.json")
    assert status == 0, told
    table = json.loads((tmp_path / "table.json").read_text())
    assert table.keys() == {"loading"}
    assert table["loading"].keys() == set(COLUMNS) - {"of_peak"}
    assert table["loading"]["ratio_min"] <= table["loading"]["ratio"] <= table["loading"]["ratio_max"]
    assert "loading" in printed and "1 of 1" in told


def test_an_unknown_row_is_one_line(script):
    status, _, told = script("benchmarks/__main__.py", "--only", "stage1")
    assert status == 2
    assert len(told.splitlines()) == 1 and "stage1" in told and "stage1_step" in told
