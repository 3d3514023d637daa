"""An annotation's segmentation as a mask: polygons, which pycocotools rasterises, run lengths, or a picture.

pycocotools' C code trusts what it is given: it reads past the end of damaged run lengths, writes past its memory where
runs of 0 are merged, and does not ask whether memory was to be had. So run lengths are decoded here, and polygons
checked before.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco

from dataset.photos import opened
from utils.errors import reason, shown

MAX_SHIFT = 30  # bits: a longer run than any photo has; without a bound one run of 1 MB would take hours
MAX_OUTLINE = 1e6  # pixels: pycocotools takes about 80 bytes for each


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The union of an annotation's parts, bool (height, width).

    `segmentation` is a list of polygons (x, y, x, y, ... in pixels), one run-length dictionary or a list of them, as in
    COCO's files, or the path of a PNG whose foreground is not 0: with a palette not index 0, in colours not black. (The
    published code turns pixels that two polygons share into background.) Raises ValueError with the reason for anything
    else, for another size than the photo's, and for coordinates that are not finite.
    """
    if isinstance(segmentation, str):
        return _picture(segmentation, height, width)
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    if not parts:
        raise ValueError("it has no part")
    pixels = np.zeros(height * width, dtype=bool)  # column by column, as COCO counts
    polygons = []
    for part in parts:
        if isinstance(part, dict):
            _fill(pixels, _checked_runs(part, height, width))
        else:
            polygons.append(_polygon(part))
    mask = pixels.reshape(width, height).T
    if polygons:
        mask |= coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)
    return mask


def _picture(path: str, height: int, width: int) -> np.ndarray:
    try:
        with opened(path, ["PNG"]) as image:
            if image.size != (width, height):
                raise ValueError(f"it is {image.width} x {image.height}, the photo is {width} x {height}")
            numbers = len(image.getbands()) == 1  # a palette's among them: its colours say nothing
            pixels = np.asarray(image if numbers else image.convert("RGB"))
            return pixels.reshape(height, width, -1).any(axis=2)
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
    corners = coordinates.reshape(-1, 2)
    if np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum() > MAX_OUTLINE:
        raise ValueError(f"a polygon's outline is longer than {MAX_OUTLINE:,.0f} pixels")
    return coordinates.tolist()


def _checked_runs(runs: dict, height: int, width: int) -> list[int]:
    """The run lengths, background first, which fill exactly this size."""
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"its run lengths are for size {shown(size)}, the photo is {[height, width]}")
    if isinstance(counts, (str, bytes)):
        counts = _run_lengths(counts.encode("ascii") if isinstance(counts, str) else counts)
    numbers = isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)
    if not numbers or sum(counts) != height * width:
        raise ValueError("its run lengths do not add up to the size of the photo")
    return counts


def _fill(pixels: np.ndarray, runs: list[int]) -> None:
    """Set the runs of foreground, which are every other one."""
    end = 0
    for background, foreground in zip(runs[::2], runs[1::2], strict=False):
        start = end + background
        end = start + foreground
        pixels[start:end] = True


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
    if shift:
        raise ValueError("its run lengths end within a run")
    return runs
