"""PhraseCut as it is distributed: `refer_{train,val,test,miniv}.json`, `image_data_split.json`, `images/<id>.jpg`."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dataset.checks import checked_name, checked_sentences
from dataset.references import Reference, Split
from utils.errors import UserError, reason
from utils.files import read_json

FOLDER = "phrasecut"  # below the data folder
PHOTOS = f"{FOLDER}/images"
DOWNLOAD = "fetch the annotations, see data/README.md"


def read_phrasecut(root: Path, split: str) -> Split:
    """A split, each phrase a ref with the union of its instances; UserError for an absent or damaged file."""
    file, photos_file = (root / FOLDER / name for name in (f"refer_{split}.json", "image_data_split.json"))
    tasks, photos = read_json(file, DOWNLOAD, _pack), read_json(photos_file, DOWNLOAD)
    try:
        sizes = {photo["image_id"]: (int(photo["height"]), int(photo["width"])) for photo in photos}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{photos_file} is not a list of photos ({reason(error)}); {DOWNLOAD}") from None
    if not isinstance(tasks, list) or not tasks:
        raise UserError(f"{file} is not a list of phrases; {DOWNLOAD}")
    references = [_reference(index, task, sizes, f"{file}: phrase {index + 1}") for index, task in enumerate(tasks)]
    return Split("phrasecut", split, root / PHOTOS, references)


def _pack(entry: dict[str, Any]) -> dict[str, Any]:
    """Polygons become arrays during parsing: as lists, those of train take gigabytes."""
    if "Polygons" in entry:
        with suppress(TypeError, ValueError, OverflowError):  # `_reference` says which phrase is damaged
            instances = entry["Polygons"]
            entry["Polygons"] = [[np.array(polygon, dtype=np.float64) for polygon in parts] for parts in instances]
    return entry


def _reference(index: int, task: dict[str, Any], sizes: dict[int, tuple[int, int]], where: str) -> Reference:
    try:
        image_id, structure = checked_name(task["image_id"], where), task["phrase_structure"]
        boxes = [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in task["instance_boxes"]]
        left, top, right, bottom = zip(*boxes, strict=True)
        polygons = [np.asarray(polygon, dtype=np.float64) for instance in task["Polygons"] for polygon in instance]
        if any(polygon.size and polygon.shape[1:] != (2,) for polygon in polygons):  # one without points is left out
            raise ValueError("a polygon is not a list of points")
        return Reference(
            index=index,
            ref_id=checked_name(task["task_id"], where),
            image_id=image_id,
            photo=f"{image_id}.jpg",
            size=sizes[image_id],
            sentences=checked_sentences([task["phrase"]], where),
            box=(min(left), min(top), max(right), max(bottom)),
            segmentation=[polygon.reshape(-1) for polygon in polygons],
            category=str(structure["name"]),
            attributes=tuple(map(str, structure["attributes"])),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}, or its photo, is absent or damaged ({reason(error)}); {DOWNLOAD}") from None
