"""Damaged data files by the million: whatever is not read must be refused in words.

    python -m tests.fuzz --inputs 1000000
    python -m tests.fuzz --inputs 20000 --only jsonl --seed 3

Valid files are mutated, half of them in their bytes, half in the values that they spell; readers get them in a folder
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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.artifacts import map_path, read_images, read_map, write_scores
from dataset.loading import load_splits
from dataset.samples import ground_truth
from model.build import load_network
from tests.bad_input import ANNOTATION, ARCHITECTURE, CURE, PHOTO, fixture
from utils.errors import UserError
from utils.options import Parser, non_negative_int, positive_int

ROUND = 2000  # inputs that hypothesis plans at once: it keeps all of a round in memory
SQUARE = [[0, 0, 4, 0, 4, 3, 0, 3]]
TEXT = st.sampled_from("a0 é/\\.:\0\n\ud800😀")  # all of Unicode takes hypothesis seconds to prepare

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**70), 10**400, 1e308, "../a", "/a", "a\0", "\ud800", "a" * 3000, [[[]]], {}]),
    st.floats(),
    st.text(TEXT, max_size=8),
    st.lists(st.integers(-9, 99), max_size=9),
    st.dictionaries(st.text(TEXT, max_size=4), st.integers(), max_size=2),
)
EDIT = st.tuples(st.sampled_from(["replace", "insert", "delete", "cut"]), st.floats(0, 1), st.binary(max_size=6))
EDITS = st.lists(EDIT, min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=6), ODD), min_size=1, max_size=3)
MUTATION = st.one_of(st.tuples(EDITS, st.none()), st.tuples(st.none(), CHANGES))


class Target(NamedTuple):
    """A reader, a value that its file can hold, how the file spells it, and where it lies."""

    file: str
    value: Any
    spell: Callable[[Any], bytes]
    read: Callable[[], object]


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
        inside[key] = copy.deepcopy(new)  # later changes may reach into it
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


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


def small_map() -> bytes:
    """A response map's file, of stage 1's scores."""
    with tempfile.TemporaryDirectory() as folder:
        write_scores(folder, "map", np.ones((2, 3)), (4, 6), (5, 5))
        return map_path(folder, "map").read_bytes()


def small_instances() -> dict:
    """The fixture's images and the annotations of its refs."""
    content = json.loads(fixture("instances.json"))
    wanted = {ref["ann_id"] for ref in pickle.loads(fixture("refs(umd).p"))}
    return content | {"annotations": [entry for entry in content["annotations"] if entry["id"] in wanted]}


def targets() -> dict[str, Target]:
    masks = [{"mask": SQUARE, "bbox": [0, 0, 4, 3]}, {"mask": {"size": [6, 8], "counts": [9, 39]}}]
    lines = [PHOTO, *(PHOTO | mask for mask in masks)]
    read_refer = partial(read_everything, "refcocog", ["train", "val", "test"])
    refs = pickle.loads(fixture("refs(umd).p"))
    network = {"prompt.x": torch.zeros(3), "logit_scale": torch.ones(())}
    checkpoint = {"model": network, "architecture": ARCHITECTURE}
    referit = {"1": {"annotations": [ANNOTATION, ANNOTATION | {"query": "c", "ref_id": 7}]}}
    refer = Path("refer/refcocog")
    return {
        "jsonl": Target("train.jsonl", lines, as_lines, partial(read_everything, "jsonl", ["train"])),
        "refs": Target(f"{refer}/refs(umd).p", refs, as_pickle, read_refer),
        "instances": Target(f"{refer}/instances.json", small_instances(), as_json, read_refer),
        "referit": Target(
            "annotations/train.pickle", referit, as_pickle, partial(read_everything, "referit", ["train"])
        ),
        "checkpoint": Target("ckpt.pth", checkpoint, as_checkpoint, lambda: load_network("ckpt.pth", CURE)),
        "map": Target("0_1.npy", small_map(), as_bytes, lambda: read_map(".", "0_1")),
        "names": Target("toy_names.json", ["0_581857", "1_9"], as_json, lambda: read_images("toy_names.json")),
    }


def fuzz(name: str, inputs: int, first_seed: int = 0) -> int:
    """Try so many inputs on one reader, in the working folder; returns how many were read. Other errors get through."""
    target, accepted = targets()[name], 0
    valid = target.spell(target.value)

    def attempt(edits: list | None, changes: list | None) -> None:
        nonlocal accepted
        content = edited(valid, edits) if edits else target.spell(changed(target.value, changes))
        Path(target.file).write_bytes(content)
        try:
            target.read()
            accepted += 1
        except UserError:
            pass

    for done in range(0, inputs, ROUND):
        trial = given(MUTATION)(lambda mutation: attempt(*mutation))
        phases = (Phase.generate, Phase.shrink)
        limits = settings(max_examples=min(ROUND, inputs - done), database=None, deadline=None, phases=phases)
        seed(first_seed + done)(settings(limits, suppress_health_check=list(HealthCheck))(trial))()
    Path(target.file).write_bytes(valid)
    return accepted


def plant() -> None:
    """The valid files of all readers, and the photo that they speak of, in the working folder."""
    for target in targets().values():
        Path(target.file).parent.mkdir(parents=True, exist_ok=True)
        Path(target.file).write_bytes(target.spell(target.value))
    Image.new("RGB", (8, 6)).save("a.jpg")


def main() -> None:
    parser = Parser("Fuzz the readers of data files.", "python -m tests.fuzz --inputs 1000000 --only jsonl")
    parser.add_argument("--inputs", type=positive_int, default=100_000, help="how many, for all readers together")
    parser.add_argument("--only", choices=[*targets()], help="one reader (default: all)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="another seed tries other inputs")
    args = parser.parse_args()
    names = [args.only] if args.only else [*targets()]
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        os.chdir(folder)
        plant()
        for name in names:
            began, inputs = time.monotonic(), args.inputs // len(names)
            accepted = fuzz(name, inputs, args.seed)
            seconds = time.monotonic() - began
            print(f"{name}: {inputs} inputs, {accepted} read, {inputs - accepted} refused, {seconds:.0f} s", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
