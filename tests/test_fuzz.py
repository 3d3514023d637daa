"""The readers, given damaged files by the hundred: each file is read, or refused with a UserError.

    HYPOTHESIS_PROFILE=long python -m pytest tests/test_fuzz.py

tries 200 times as many, different ones each time, in an hour or so.
"""

import copy
import io
import json
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.artifacts import read_images, read_map
from dataset.datasets import load_splits
from dataset.masks import rasterise
from dataset.samples import ground_truth
from utils.checkpoint import fill, load_checkpoint
from utils.errors import UserError

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
PROFILES = {"short": {"max_examples": 100, "derandomize": True}, "long": {"max_examples": 20_000}}
PROFILE = settings(**COMMON, **PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "short")])

TEXT = st.text(st.sampled_from("a01 é/\\.:\0\n\ud800😀"), max_size=8)
NUMBER = st.integers(-9, 99) | st.sampled_from([2**31, 2**63, -(2**70), 10**400]) | st.floats()
ODD = st.one_of(
    *(st.none(), st.booleans(), NUMBER, TEXT, st.binary(max_size=4), st.sampled_from(["../a", "a" * 3000, [[[]]]])),
    *(st.lists(NUMBER, max_size=9), st.dictionaries(TEXT, NUMBER, max_size=2)),
)
# Bytes to put in the place of some at a share of the file; values to put in the place of one inside what it holds.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=6), ODD), min_size=1, max_size=3)

PHOTO = {"image": "a.jpg", "sentences": ["x"]}
POLYGONS, RUNS = [[0, 0, 4, 0, 4, 3, 0, 3]], {"size": [6, 8], "counts": [9, 39]}
REF = {"ref_id": 1, "ann_id": 2, "image_id": 3, "split": "val", "sentences": [{"sent": "x"}], "category_id": 4}
IMAGE = {"id": 3, "file_name": "a.jpg", "height": 6, "width": 8}
INSTANCES = {"images": [IMAGE], "annotations": [{"id": 2, "bbox": [0, 0, 4, 3], "segmentation": POLYGONS}]}
REFERIT = {"1": {"annotations": [{"query": ["x"], "bbox": [[0, 0, 4, 3]], "segmentation": [RUNS]}]}}


def as_json(value):
    return json.dumps(value, default=repr).encode()


def as_lines(value):
    return b"\n".join(map(as_json, value)) if isinstance(value, list) else as_json(value)


def as_checkpoint(value):
    torch.save(value, file := io.BytesIO())
    return file.getvalue()


def as_map(value):
    """An .npz of three values, an .npy of another number."""
    if len(value) == 3:
        np.savez(file := io.BytesIO(), scores=value[0], input_size=value[1], photo_size=value[2])
    else:
        np.save(file := io.BytesIO(), value)
    return file.getvalue()


def read_split(dataset, name):
    """Read the annotations of a split and decode all its masks."""
    split = load_splits(dataset, ".", "umd", [name])[name]
    for reference in split.references:
        if reference.segmentation is not None:
            ground_truth(split, reference, (reference.height, reference.width))


def read_network(name):
    fill(torch.nn.Linear(2, 1), load_checkpoint(name, "train it"), name, "train it")


LINES = [PHOTO, PHOTO | {"mask": POLYGONS}, PHOTO | {"mask": RUNS}]
FILES = {  # what a good one holds, how it is written, and how it is read
    "refer/refcocog/refs(umd).p": ([REF], pickle.dumps, lambda _: read_split("refcocog", "val")),
    "refer/refcocog/instances.json": (INSTANCES, as_json, lambda _: read_split("refcocog", "val")),
    "annotations/test.pickle": (REFERIT, pickle.dumps, lambda _: read_split("referit", "test")),
    "train.jsonl": (LINES, as_lines, lambda _: read_split("jsonl", "train")),
    "a_names.json": (["0_581857", "1_9"], as_json, read_images),
    "a.pth": (dict(torch.nn.Linear(2, 1).state_dict()), as_checkpoint, read_network),
    "0_1.npz": ([[[1.0, 0.5]], [4, 6], [5, 5]], as_map, lambda _: read_map(".", "0_1")),
    "0_2.npy": ([[1.0, 0.5], [0.0, 1.0]], as_map, lambda _: read_map(".", "0_2")),
}


def edited(content, edits):
    for place, removed, new in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + removed :]
    return content


def changed(value, changes):
    """A path chooses an item, an item of that item, and so on, until it ends or there are none."""
    root = [copy.deepcopy(value)]
    for path, new in changes:
        inside, key = root, 0
        for step in path:
            item = inside[key]
            if not isinstance(item, (list, dict)) or not item:
                break
            inside, key = item, list(item)[step % len(item)] if isinstance(item, dict) else step % len(item)
        inside[key] = copy.deepcopy(new)
    return root[0]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6)).save("a.jpg")
    for file, (value, write, _) in FILES.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(write(value))
    value, write, read = FILES[name]
    read(name)

    @PROFILE
    @given(EDITS.map(lambda edits: edited(write(value), edits)) | CHANGES.map(lambda changes: changed(value, changes)))
    def attempt(damaged):
        if not isinstance(damaged, bytes):
            try:
                damaged = write(damaged)
            except Exception:
                return  # no such file can be written
        Path(name).write_bytes(damaged)
        with suppress(UserError):
            read(name)

    attempt()


RLE = st.fixed_dictionaries(
    {"size": st.just([6, 8]) | ODD, "counts": st.lists(st.integers(-2, 50), max_size=9) | st.text(max_size=9) | ODD}
)
POLYGON = st.lists(NUMBER, max_size=10) | ODD


@PROFILE
@given(st.lists(RLE | POLYGON, max_size=3) | RLE | ODD, st.sampled_from([(6, 8), (1, 1), (0, 5), (10**9, 10**9)]))
def test_a_damaged_mask_is_rasterised_or_refused(segmentation, size):
    with suppress(ValueError, TypeError, OverflowError):
        mask = rasterise(segmentation, *size)
        assert (mask.shape, mask.dtype) == (size, bool)
