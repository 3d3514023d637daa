"""The toy world on disk, in the files of RefCOCOg or of ReferIt.

The same photos give the same bytes. Annotations are removed first and written last: where they are, all photos are.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from dataset.toy.photos import Photo
from dataset.toy.scenes import SHAPES, Scene, Thing
from utils.errors import UserError
from utils.files import replacing, write_json

DESCRIPTION = "toy world of TRIS"
MARKER = "toy_world.json"  # beside the annotations, from the first photo on
RLE_EVERY = 10  # every tenth annotation is run-length encoded instead of a polygon: both occur in COCO


def polygon(thing: Thing) -> list[float]:
    """An object's outline as COCO writes it: x0, y0, x1, y1, ... in pixels."""
    return [round(float(value), 2) for value in thing.contour.reshape(-1)]


def run_length(thing: Thing, scene: Scene) -> dict[str, Any]:
    """An object's mask as COCO's compressed run-length code, with its counts as text."""
    rle = coco_mask.frPyObjects([polygon(thing)], scene.height, scene.width)[0]
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def bounding_box(thing: Thing) -> list[float]:
    """x, y, width, height in pixels."""
    low, high = thing.contour.min(axis=0), thing.contour.max(axis=0)
    return [round(float(value), 2) for value in (*low, *(high - low))]


def file_name(image_id: int) -> str:
    """A photo's file as COCO names it."""
    return f"COCO_train2014_{image_id:012d}.jpg"


def _annotation(ann_id: int, thing: Thing, photo: Photo) -> dict[str, Any]:
    rle = run_length(thing, photo.scene)
    return {
        "id": ann_id,
        "image_id": photo.image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "segmentation": [polygon(thing)] if ann_id % RLE_EVERY else rle,
        "area": float(coco_mask.area(rle)),
        "bbox": bounding_box(thing),
        "iscrowd": 0,
    }


def _ref(ref_id: int, ann_id: int, thing: Thing, photo: Photo, texts: list[str], first_id: int) -> dict[str, Any]:
    said = [
        {"sent_id": first_id + i, "sent": text, "raw": text.capitalize() + ".", "tokens": text.split()}
        for i, text in enumerate(texts)
    ]
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": photo.image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "file_name": file_name(photo.image_id).replace(".jpg", f"_{ann_id}.jpg"),
        "split": photo.split,
        "sent_ids": [sentence["sent_id"] for sentence in said],
        "sentences": said,
    }


def write_refcocog(output: Path, photos: Iterator[Photo]) -> tuple[int, int]:
    """Write photos and annotations as RefCOCOg lays them out; returns the numbers of photos and of refs."""
    folder = output / "refer" / "refcocog"
    _make_way(folder, ("instances.json", "refs(umd).p"), output / "train2014")
    images, annotations, refs = [], [], []
    sentence_count = 0
    for photo in photos:
        name = file_name(photo.image_id)
        _write_bytes(output / "train2014" / name, photo.jpeg)
        size = {"height": photo.scene.height, "width": photo.scene.width}
        images.append({"id": photo.image_id, "file_name": name, **size})
        texts_of = {id(thing): [text for text, _ in said] for thing, said in photo.spoken_of}
        for thing in photo.scene.things:
            annotations.append(_annotation(len(annotations) + 1, thing, photo))
            if texts := texts_of.get(id(thing)):
                refs.append(_ref(len(refs) + 1, len(annotations), thing, photo, texts, sentence_count + 1))
                sentence_count += len(texts)
    _write_bytes(folder / "refs(umd).p", pickle.dumps(refs, protocol=2))
    categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
    tables = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "instances.json", {"info": {"description": DESCRIPTION}, **tables})
    return len(images), len(refs)


def write_referit(output: Path, photos: Iterator[Photo]) -> tuple[int, int]:
    """The same as ReferIt lays it out. It knows no val split: its photos are left out."""
    folder = output / "annotations"
    _make_way(folder, ("train.pickle", "test.pickle"), output / "images")
    items: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
    for photo in photos:
        if photo.split in items:
            _write_bytes(output / "images" / f"{photo.image_id}.jpg", photo.jpeg)
            items[photo.split][str(photo.image_id)] = {"annotations": _referit_annotations(photo)}
    for split, table in items.items():
        _write_bytes(folder / f"{split}.pickle", pickle.dumps(table, protocol=2))
    tables = [entry for table in items.values() for entry in table.values()]
    return len(tables), sum(len(entry["annotations"]) for entry in tables)


def _referit_annotations(photo: Photo) -> list[dict[str, Any]]:
    annotations = []
    for index, (thing, said) in enumerate(photo.spoken_of):
        x, y, width, height = bounding_box(thing)
        annotations.append(
            {
                "image_id": str(photo.image_id),
                "ref_id": f"{photo.image_id}_{index}",
                "query": [text for text, _ in said],
                "bbox": [[x, y, x + width, y + height]],
                "segmentation": [run_length(thing, photo.scene)],
            }
        )
    return annotations


def _make_way(folder: Path, annotations: Sequence[str], photos: Path) -> None:
    """Mark the annotations' folder as a toy world's, also where one is not finished, and remove its annotations.

    Raises UserError, with nothing changed, where annotations or photos on the disk are not a toy world's.
    """
    files = [folder / name for name in annotations if (folder / name).exists()]
    there = [*files, *islice(photos.glob("*"), 1)]
    if there and not _is_toy_world(folder):
        raise UserError(f"{there[0]} belongs to another data set and is not overwritten; give another --output")
    write_json(folder / MARKER, {"info": {"description": DESCRIPTION}})
    for file in files:
        file.unlink()


def _is_toy_world(folder: Path) -> bool:
    instances = folder / "instances.json"
    if not instances.exists():
        return (folder / MARKER).exists()
    try:
        return json.loads(instances.read_text())["info"]["description"] == DESCRIPTION
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


LAYOUTS = {"refcocog": write_refcocog, "referit": write_referit}
