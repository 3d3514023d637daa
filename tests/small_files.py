"""Small files of every kind that the readers take, for tests that damage them."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataset.artifacts import read_images, read_map, read_mask
from dataset.datasets import load_splits
from dataset.photos import read_photo
from dataset.samples import ground_truth
from utils.checkpoint import fill, load_checkpoint

LINE = {"image": "a.jpg", "sentences": ["x"]}
POLYGONS, RUNS = [[0, 0, 4, 0, 4, 3, 0, 3]], {"size": [6, 8], "counts": [9, 39]}
REF = {"ref_id": 1, "ann_id": 2, "image_id": 3, "split": "val", "sentences": [{"sent": "x"}], "category_id": 4}
IMAGE = {"id": 3, "file_name": "a.jpg", "height": 6, "width": 8}
ANNOTATION = {"id": 2, "bbox": [0, 0, 4, 3], "segmentation": POLYGONS}
INSTANCES = {"images": [IMAGE], "annotations": [ANNOTATION]}
QUERY = {"query": ["x"], "bbox": [[0, 0, 4, 3]], "segmentation": [RUNS]}
REFERIT = {"1": {"annotations": [QUERY]}}


def as_json(value):
    return json.dumps(value, default=repr).encode()


def as_lines(value):
    return b"\n".join(map(as_json, value)) if isinstance(value, list) else as_json(value)


def as_checkpoint(value, **options):
    torch.save(value, file := io.BytesIO(), **options)
    return file.getvalue()


def as_scores(value):
    scores, input_size, photo_size = value
    np.savez(file := io.BytesIO(), scores=scores, input_size=input_size, photo_size=photo_size)
    return file.getvalue()


def as_map(value):
    np.save(file := io.BytesIO(), value)
    return file.getvalue()


def as_picture(value, kind="PNG"):
    Image.fromarray(value).save(file := io.BytesIO(), kind)
    return file.getvalue()


def read_split(dataset, name):
    """Read the annotations of a split and decode all its masks."""
    split = load_splits(dataset, ".", "umd", [name])[name]
    for reference in split.references:
        if reference.segmentation is not None:
            ground_truth(split, reference, reference.size)


def read_network(name):
    fill(torch.nn.Linear(2, 1), load_checkpoint(name, "train it"), name, "train it")


REFS_FILE, INSTANCES_FILE = "refer/refcocog/refs(umd).p", "refer/refcocog/instances.json"
LINES = [LINE, LINE | {"mask": POLYGONS}, LINE | {"mask": RUNS}]
PIXELS = np.zeros((6, 8, 3), np.uint8)
FILES = {  # what a good one holds, how it is written, and how it is read
    "a.jpg": (PIXELS, lambda value: as_picture(value, "JPEG"), read_photo),
    REFS_FILE: ([REF], pickle.dumps, lambda _: read_split("refcocog", "val")),
    INSTANCES_FILE: (INSTANCES, as_json, lambda _: read_split("refcocog", "val")),
    "annotations/test.pickle": (REFERIT, pickle.dumps, lambda _: read_split("referit", "test")),
    "train.jsonl": (LINES, as_lines, lambda _: read_split("jsonl", "train")),
    "a_names.json": (["0_581857", "1_9"], as_json, read_images),
    "a.pth": (dict(torch.nn.Linear(2, 1).state_dict()), as_checkpoint, read_network),
    "0_1.npz": ([[[1.0, 0.5]], [4, 6], [5, 5]], as_scores, lambda _: read_map(".", "0_1")),
    "0_2.npy": ([[1.0, 0.5], [0.0, 1.0]], as_map, lambda _: read_map(".", "0_2")),
    "0_1.png": (PIXELS[:, :, 0], as_picture, lambda _: read_mask(".", "0_1")),
}


def write(name, content):
    """Write bytes as they are, other values as `FILES` says or as JSON."""
    to_bytes = FILES[name][1] if name in FILES else as_json
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else to_bytes(content))


def write_good_files():
    for name, (content, _, _) in FILES.items():
        write(name, content)
