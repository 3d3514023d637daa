"""Your own data: `FOLDER/{train,val,...}.jsonl`, one JSON object per line (docs/own_data.md).

    {"image": "photo.jpg", "sentences": ["...", ...], "mask": polygons or RLE or "mask.png", "bbox": [x, y, w, h]}

Paths are relative to FOLDER. `mask` and `bbox` are optional: a split without masks can be used for training and export,
but not for evaluation. `"mask": []` says that nothing in the photo fits the sentences.
"""

import json
from pathlib import Path

import numpy as np

from dataset.checks import checked_path, checked_sentences
from dataset.masks import rasterise
from dataset.photos import opened
from dataset.references import ABSENT, Reference, Split
from utils.errors import UserError, reason
from utils.files import from_utf8

FORM = 'a line is {"image": "photo.jpg", "sentences": ["...", ...]}, see docs/own_data.md'


def read_jsonl(file: Path, masks: bool = True) -> Split:
    """The split in a file, without its blank lines; UserError with line number for a line that cannot be used.

    masks: False does not look at `mask` and `bbox`.
    """
    root = file.parent
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        raise UserError(f"{file} is not there; write it, or name another (see docs/own_data.md)") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); check its permissions") from None
    references: list[Reference] = []
    image_ids: dict[str, int] = {}  # photo -> its number, in the order of the lines
    for number, line in enumerate(lines, start=1):
        if line.strip():
            references.append(_reference(len(references), line, f"{file}:{number}", root, image_ids, masks))
    if not references:
        raise UserError(f"{file} is empty; {FORM}")
    return Split("jsonl", file.stem, root, references)


def _reference(index: int, line: bytes, where: str, root: Path, image_ids: dict[str, int], masks: bool) -> Reference:
    try:
        entry = json.loads(from_utf8(line))
        if not isinstance(entry, dict):
            raise ValueError("no braces around it")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not a JSON object ({reason(error)}); {FORM}") from None
    photo = checked_path(entry.get("image"), where)
    size, box, mask = None, None, entry.get("mask") if masks else None
    if isinstance(mask, str):
        mask = root / checked_path(mask, where, "mask")
    if mask is not None:
        try:
            with opened(root / photo) as picture:  # reads its header alone, unless it is a turned TIFF
                size = (picture.height, picture.width)
            if mask == []:
                mask = ABSENT
            elif entry.get("bbox") is not None:
                x, y, w, h = (float(value) for value in entry["bbox"])
                box = (x, y, x + w, y + h)
            else:
                rows, columns = np.nonzero(rasterise(mask, *size))
                if not rows.size:
                    raise ValueError("the mask is empty; to say that nothing is there, write []")
                box = tuple(map(float, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
        except (OSError, TypeError, ValueError, OverflowError) as error:
            words = f"{where} has a photo, mask or bbox that cannot be used ({reason(error)})"
            raise UserError(f"{words}; correct it, see docs/own_data.md") from None
    return Reference(
        index=index,
        ref_id=index,
        image_id=image_ids.setdefault(photo, len(image_ids)),
        photo=photo,
        size=size,
        sentences=checked_sentences(entry.get("sentences"), where),
        box=box,
        segmentation=mask,
    )
