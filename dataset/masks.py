"""An annotation's segmentation as a mask: polygons and run lengths, rasterised by pycocotools, or a picture."""

from typing import Any

import numpy as np
from pycocotools import mask as coco

from dataset.photos import opened
from utils.errors import reason, shown

MAX_SHIFT = 30  # bits: a longer run than any photo has; without a bound one run of 1 MB would take hours


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The union of an annotation's parts, bool (height, width).

    `segmentation` is a list of polygons (x, y, x, y, ... in pixels), one run-length dictionary or a list of them, as in
    COCO's files, or the path of a PNG whose foreground is not 0. (The published code turns pixels that two polygons
    share into background.) Raises ValueError with the reason for anything else, for another size than the photo's, and
    for coordinates that are not finite.
    """
    if isinstance(segmentation, str):
        return _picture(segmentation, height, width)
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if not parts:
        raise ValueError("it has no part")
    runs = [_checked_runs(part, height, width) if isinstance(part, dict) else _polygon(part) for part in parts]
    encoded = [run if isinstance(run, dict) else coco.frPyObjects([run], height, width)[0] for run in runs]
    return coco.decode(coco.merge(encoded)).astype(bool)


def _picture(path: str, height: int, width: int) -> np.ndarray:
    try:
        with opened(path, ["PNG"]) as image:
            if image.size != (width, height):
                raise ValueError(f"it is {image.width} x {image.height}, the photo is {width} x {height}")
            return np.asarray(image.convert("L")) > 0
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{path} cannot be used ({reason(error)})") from None


def _polygon(points: Any) -> list[float]:
    if not isinstance(points, (list, tuple)) or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon needs at least three points x, y")
    if not all(isinstance(point, (int, float)) for point in points):
        raise ValueError("a polygon has a coordinate that is no number")
    coordinates = np.asarray(points, dtype=np.float64)
    if not np.isfinite(coordinates).all() or np.abs(coordinates).max() > 1e5:
        raise ValueError("a polygon has coordinates that are not finite or absurdly large")
    return coordinates.tolist()


def _checked_runs(runs: dict, height: int, width: int) -> dict:
    """Compressed run lengths of exactly this size."""
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"its run lengths are for size {shown(size)}, the photo is {[height, width]}")
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != height * width:
            raise ValueError("its run lengths do not add up to the size of the photo")
        return coco.frPyObjects(runs, height, width)
    encoded = counts.encode("ascii") if isinstance(counts, str) else counts
    if not isinstance(encoded, bytes) or sum(_run_lengths(encoded)) != height * width:
        raise ValueError("its run lengths do not add up to the size of the photo")
    return {"size": [height, width], "counts": encoded}


def _run_lengths(encoded: bytes) -> list[int]:
    """The runs in COCO's compressed string: 5 bits a character, each run from the third on relative to two before."""
    runs: list[int] = []
    value = shift = 0
    for byte in encoded:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > MAX_SHIFT:
            raise ValueError("its run lengths hold a character that COCO's format does not know")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        if runs[-1] < 0:
            raise ValueError("its run lengths hold a negative run")
        value = shift = 0
    return runs
