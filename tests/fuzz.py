"""Damaged data files by the million: whatever is not read must be refused in words.

    python -m tests.fuzz --inputs 1000000
    python -m tests.fuzz --inputs 20000 --only jsonl --seed 3

Valid files are mutated, half of them in their bytes, half in the values that they spell; the readers get them in a folder
in memory. Any error but UserError ends the run with the input that hypothesis shrank it to.
"""

import copy
import io
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.loading import load_splits
from dataset.samples import ground_truth
from model.build import load_network
from tests.bad_input import ANNOTATION, CURE, GLOBAL, PHOTO, fixture
from utils.errors import UserError
from utils.options import Parser, non_negative_int, positive_int

ROUND = 2000  # inputs that hypothesis plans at once: it keeps all of a round in memory
SQUARE = [[0, 0, 4, 0, 4, 3, 0, 3]]

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**70), 10**400, 1e308, "../a", "/a", "a\0", "\ud800", "a" * 3000, [[[]]], {}]),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 99), max_size=9),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
EDIT = st.tuples(st.sampled_from(["replace", "insert", "delete", "cut"]), st.floats(0, 1), st.binary(max_size=6))
EDITS = st.lists(EDIT, min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=6), ODD), min_size=1, max_size=3)


class Target(NamedTuple):
    """A reader, a value that its file can hold, how the file spells it, and where it lies."""

    file: str
    value: Any
    spell: Callable[[Any], bytes]
    read: Callable[[], object]
    share: int = 10  # of the inputs, in thirds of a tenth


def edited(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Bytes with some replaced, inserted or taken away."""
    for kind, place, chunk in edits:
        at = int(place * len(content))
        rest = {"insert": content[at:], "cut": b""}.get(kind, content[at + max(1, len(chunk)) :])
        content = content[:at] + (b"" if kind == "delete" else chunk) + rest
    return content


def changed(value: Any, changes: list[tuple[list[int], Any]]) -> Any:
    """A value with some of what it consists of replaced; a path chooses among the items, again and again."""
    root = [copy.deepcopy(value)]
    for path, new in changes:
        inside, key = root, 0
        for step in path:
            item = inside[key]
            if not isinstance(item, (list, dict)) or not item:
                break
            inside, key = item, list(item)[step % len(item)] if isinstance(item, dict) else step % len(item)
        inside[key] = new
    return root[0]


def read_everything(dataset: str, splits: list[str]) -> None:
    """Read the annotations and rasterise every mask that they have."""
    for split in load_splits(dataset, ".", "umd", splits).values():
        for reference in split.references:
            if reference.segmentation is not None:
                ground_truth(split, reference, (reference.height, reference.width))


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_pickle(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def as_lines(values: Any) -> bytes:
    return b"\n".join(map(as_json, values)) if isinstance(values, list) else as_json(values)


def as_checkpoint(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def small_instances() -> dict:
    """The fixture's images and the annotations of its refs."""
    content = json.loads(fixture("instances.json"))
    wanted = {ref["ann_id"] for ref in pickle.loads(fixture("refs(umd).p"))}
    return content | {"annotations": [entry for entry in content["annotations"] if entry["id"] in wanted]}


def targets() -> dict[str, Target]:
    lines = [PHOTO, PHOTO | {"mask": SQUARE, "bbox": [0, 0, 4, 3]}, PHOTO | {"mask": {"size": [6, 8], "counts": [9, 39]}}]
    refs = pickle.loads(fixture("refs(umd).p"))[:3]
    network = {"prompt.x": torch.zeros(3), "logit_scale": torch.ones(())}
    described = {"backbone": "toy-RN", "hidden_dim": 8, "prompt_weight": 0.1}
    referit = {"1": {"annotations": [ANNOTATION, ANNOTATION | {"query": "c", "ref_id": 7}]}}
    splits = list(dict.fromkeys(ref["split"] for ref in refs))
    refer = Path("refer/refcocog")
    return {
        "jsonl": Target("train.jsonl", lines, as_lines, lambda: read_everything("jsonl", ["train"])),
        "refs": Target(f"{refer}/refs(umd).p", refs, as_pickle, lambda: read_everything("refcocog", splits)),
        "instances": Target(
            f"{refer}/instances.json", small_instances(), as_json, lambda: read_everything("refcocog", splits)
        ),
        "referit": Target("annotations/train.pickle", referit, as_pickle, lambda: read_everything("referit", ["train"])),
        "checkpoint": Target(
            "ckpt.pth", {"model": network, "architecture": described}, as_checkpoint, lambda: load_network("ckpt.pth", CURE)
        ),
    }
