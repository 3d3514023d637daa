"""Your own data: `FOLDER/{train,val,...}.jsonl`, one JSON object a line (docs/own_data.md).

    {"image": "photo.jpg", "sentences": ["...", ...], "mask": RLE or polygons or "mask.png", "bbox": [x, y, w, h]}

Paths are relative to FOLDER. `mask` and `bbox` are optional: a split without them can be trained on and exported, not
evaluated.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.checks import checked_box, checked_photo, checked_sentences
from dataset.masks import rasterise
from dataset.photos import opened
from dataset.references import Reference, Split, Tell, strict
from utils.errors import UserError, reason

FORM = 'a line is {"image": "photo.jpg", "sentences": ["...", ...]}, see docs/own_data.md'


def read_jsonl(root: Path, splits: Sequence[str], tell: Tell = strict) -> dict[str, Split]:
    """The splits asked for; UserError with file and line number for a line that cannot be used.

    tell: is handed the error of each such line, which is then left out.
    """
    return {split: _read_split(root, split, tell) for split in splits}


def _read_split(root: Path, split: str, tell: Tell) -> Split:
    file = root / f"{split}.jsonl"
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        raise UserError(f"{file} is not there; write one JSON object a line, or choose another split") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); correct it, or choose another split") from None
    references: list[Reference] = []
    image_ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            references.append(_reference(len(references), line, f"{file}:{number}", root, image_ids))
        except UserError as error:
            tell(error)
    if not references:
        raise UserError(f"{file} has no usable line; {FORM}")
    return Split("jsonl", split, root, references)


def _reference(index: int, line: bytes, where: str, root: Path, image_ids: dict[str, int]) -> Reference:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON ({reason(error)}); {FORM}") from None
    if not isinstance(entry, dict):
        raise UserError(f"{where} is no object; {FORM}")
    photo = checked_photo(entry.get("image"), where)
    mask = entry.get("mask")
    height, width = _photo_size(root / photo, where) if mask is not None else (None, None)
    if isinstance(mask, str):
        mask = str(root / checked_photo(mask, where, "mask"))
    return Reference(
        index=index,
        ref_id=index,
        image_id=image_ids.setdefault(photo, len(image_ids)),
        photo=photo,
        height=height,
        width=width,
        sentences=checked_sentences(entry.get("sentences"), where),
        box=_box(entry.get("bbox"), mask, height, width, where),
        segmentation=mask,
    )


def _photo_size(path: Path, where: str) -> tuple[int, int]:
    """Height and width from the photo's header; nothing is decoded."""
    try:
        with opened(path) as photo:
            return photo.height, photo.width
    except (FileNotFoundError, ValueError) as error:
        words = f"{where}: the photo {path} cannot be read ({reason(error)})"
        raise UserError(f"{words}; correct the path or the file") from None


def _box(bbox: Any, mask: Any, height: int | None, width: int | None, where: str) -> tuple | None:
    """The annotated box as corners, or that of the mask."""
    if mask is None:
        return None
    try:
        if bbox is not None:
            x, y, w, h = checked_box(bbox)
            return (x, y, x + w, y + h)
        rows, columns = np.nonzero(rasterise(mask, height, width))
        if not rows.size:
            raise ValueError("the mask is empty")
        return (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} has an empty or damaged mask or box ({reason(error)}); {FORM}") from None
