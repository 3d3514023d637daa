"""What a user wants to know about the pseudo masks before training on them: figures per ref, and a picture of some."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN, label_path, mask_path, read_facts, read_label, read_mask
from dataset.photos import read_photo
from IRNet.passes import PhotoRefs, read_response
from utils.errors import UserError
from utils.files import write_json
from utils.pictures import contact_sheet, heat_overlay, mask_overlay, save_png, spread

SHOWN = 48
LABEL_COLOURS = {BACKGROUND: (30, 30, 30), FOREGROUND: (255, 255, 255), UNKNOWN: (128, 128, 160)}


def write_report(path: Path, photos: list[PhotoRefs], mask_dir: Path) -> None:
    """Write `pseudo_masks.json`: the facts of every mask that is there, and their summary."""
    refs = {}
    for name in (name for photo in photos for name in photo.names):
        if mask_path(mask_dir, name).is_file():
            refs[name] = read_facts(mask_dir, name)
    write_json(path, {"summary": _summary(refs, sum(len(photo.names) for photo in photos)), "refs": refs}, indent=1)


def _summary(refs: dict[str, dict[str, float]], listed: int) -> dict[str, Any]:
    known = [facts for facts in refs.values() if facts]
    instances = Counter(facts["instances"] for facts in known)
    return {
        "listed": listed,
        "masks": len(refs),
        "empty": instances[0],
        "mean_covered": round(float(np.mean([facts["covered"] for facts in known])), 6) if known else None,
        "mean_response": round(float(np.mean([facts["mean_response"] for facts in known])), 6) if known else None,
        "refs_by_number_of_instances": dict(sorted(instances.items())),
    }


def draw_contact_sheet(
    path: Path, photos: list[PhotoRefs], map_dir: Path, label_dir: Path | None, mask_dir: Path
) -> None:
    """Draw image, response map, IR label and mask of refs spread evenly over the list; nothing where there is none.

    Where there is no IR label its place is black.
    """
    made = [(p.path, name) for p in photos for name in p.names if mask_path(mask_dir, name).is_file()]
    rows = []
    for photo_path, name in spread(made, SHOWN):
        try:
            rows.append(_row(np.array(read_photo(photo_path)), name, map_dir, label_dir, mask_dir))
        except UserError:  # its map or photo has gone, or is another, since the mask was made
            continue
    if rows:
        save_png(path, contact_sheet(rows, across=4))


def _row(photo: np.ndarray, name: str, map_dir: Path, label_dir: Path | None, mask_dir: Path) -> list[np.ndarray]:
    response = read_response(map_dir, name, photo.shape[:2])
    has_label = label_dir is not None and label_path(label_dir, name).is_file()
    label = _paint_label(read_label(label_dir, name)) if has_label else np.zeros_like(photo)
    mask = read_mask(mask_dir, name, photo.shape[:2])
    return [photo, heat_overlay(photo, response), label, mask_overlay(photo, mask)]


def _paint_label(label: np.ndarray) -> np.ndarray:
    painted = np.zeros((*label.shape, 3), dtype=np.uint8)
    for value, colour in LABEL_COLOURS.items():
        painted[label == value] = colour
    return painted
