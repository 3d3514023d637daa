"""The toy world on disk, in the files of RefCOCOg, of gRefCOCO or of ReferIt. The same photos give the same bytes.

Annotations are removed first and written last: where there are annotations, all photos are there.
"""

import itertools
import json
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from toy.photos import Photo, beyond_one
from toy.scenes import SHAPES, Scene, Thing
from utils.errors import UserError
from utils.files import atomic_write, write_json

DESCRIPTION = "toy world of TRIS"
MARKER = "toy_world.json"  # beside the annotations, from before the first photo is written
RLE_EVERY = 10  # every tenth annotation is run-length encoded, the others are polygons: COCO has both


def write_refcocog(output: Path, photos: Iterator[Photo], general: bool = False) -> tuple[int, int]:
    """Write the photos and their annotations in RefCOCOg's layout; `general`: in gRefCOCO's.

    gRefCOCO has refs of two objects and of nothing that is there besides; of the latter, `absent` says what is wrong.
    Returns the numbers of photos and of refs. Raises UserError if another data set is there.
    """
    folder = output / "refer" / ("grefcoco" if general else "refcocog")
    instances, refs_file = folder / "instances.json", folder / ("grefs(unc).json" if general else "refs(umd).p")
    _claim(folder, (instances, refs_file), output / "train2014")
    images, annotations, refs = [], [], []
    sentence_ids = itertools.count(1)
    for photo in photos:
        name = f"COCO_train2014_{photo.image_id:012d}.jpg"
        _write_bytes(output / "train2014" / name, photo.jpeg)
        size = {"height": photo.scene.height, "width": photo.scene.width}
        images.append({"id": photo.image_id, "file_name": name, **size})
        ids: dict[Thing, dict[str, int]] = {}
        for thing in photo.scene.things:
            polygon, rle, box = _outline(thing, photo.scene)
            ann_id = len(annotations) + 1
            ids[thing] = {"image_id": photo.image_id, "category_id": SHAPES.index(thing.shape) + 1}
            outline = {"segmentation": [polygon] if ann_id % RLE_EVERY else rle, "area": float(coco_mask.area(rle))}
            annotations.append({"id": ann_id, **ids[thing], **outline, "bbox": box, "iscrowd": 0})
            ids[thing] = {"ann_id": ann_id, **ids[thing]}
        named = [((thing,), [text for text, _ in said], None) for thing, said in photo.described]
        for things, texts, wrong in [*named, *(beyond_one(photo) if general else ())]:
            sentences = [
                {"sent_id": next(sentence_ids), "sent": text, "raw": text.capitalize() + ".", "tokens": text.split()}
                for text in texts
            ]
            own = [ids[thing] for thing in things] or [{"ann_id": -1, "image_id": photo.image_id, "category_id": -1}]
            many = {key: [one[key] for one in own] for key in ("ann_id", "category_id")} if general else {}
            refs.append(
                {
                    "ref_id": len(refs) + 1,
                    **own[0],
                    **many,
                    "file_name": name.replace(".jpg", f"_{own[0]['ann_id']}.jpg"),
                    # gRefCOCO's test photos are in two splits.
                    "split": f"test{'AB'[photo.image_id % 2]}" if general and photo.split == "test" else photo.split,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                    **({"absent": wrong} if wrong else {}),
                }
            )
    _write_bytes(refs_file, json.dumps(refs).encode() if general else pickle.dumps(refs, protocol=2))
    categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
    tables = {"images": images, "annotations": annotations, "categories": categories}
    write_json(instances, {"info": {"description": DESCRIPTION}, **tables})
    return len(images), len(refs)


def write_referit(output: Path, photos: Iterator[Photo]) -> tuple[int, int]:
    """The same in ReferIt's layout. ReferIt has no val split, so the photos of that split are left out."""
    folder = output / "annotations"
    files = {split: folder / f"{split}.pickle" for split in ("train", "test")}
    _claim(folder, tuple(files.values()), output / "images")
    tables: dict[str, dict[str, Any]] = {split: {} for split in files}
    for photo in photos:
        if photo.split not in tables:
            continue
        _write_bytes(output / "images" / f"{photo.image_id}.jpg", photo.jpeg)
        annotations = []
        for index, (thing, said) in enumerate(photo.described):
            _, rle, (x, y, width, height) = _outline(thing, photo.scene)
            annotations.append(
                {
                    "image_id": str(photo.image_id),
                    "ref_id": f"{photo.image_id}_{index}",
                    "query": [text for text, _ in said],
                    "bbox": [[x, y, x + width, y + height]],
                    "segmentation": [rle],
                }
            )
        tables[photo.split][str(photo.image_id)] = {"annotations": annotations}
    for split, table in tables.items():
        _write_bytes(files[split], pickle.dumps(table, protocol=2))
    entries = [entry for table in tables.values() for entry in table.values()]
    return len(entries), sum(len(entry["annotations"]) for entry in entries)


LAYOUTS = {"refcocog": write_refcocog, "referit": write_referit, "grefcoco": partial(write_refcocog, general=True)}


def _outline(thing: Thing, scene: Scene) -> tuple[list[float], dict[str, Any], list[float]]:
    """An object as COCO's polygon x0, y0, x1, y1, ..., run-length code, and bounding box x, y, width, height."""
    polygon = [round(float(value), 2) for value in thing.contour.reshape(-1)]
    rle = coco_mask.frPyObjects([polygon], scene.height, scene.width)[0]
    low, high = thing.contour.min(axis=0), thing.contour.max(axis=0)
    box = [round(float(value), 2) for value in (*low, *(high - low))]
    return polygon, {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}, box


def _claim(folder: Path, annotations: tuple[Path, ...], photos: Path) -> None:
    """Mark `folder` as a toy world's and remove the annotations; UserError, with nothing changed, if it is not one."""
    existing = next((file for file in (*annotations, *photos.glob("*")) if file.exists()), None)
    if existing and not (folder / MARKER).exists():
        raise UserError(f"{existing} belongs to another data set and is not overwritten; give another --output")
    write_json(folder / MARKER, {"info": {"description": DESCRIPTION}})
    for file in annotations:
        file.unlink(missing_ok=True)


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
