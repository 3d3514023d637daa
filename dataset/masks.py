"""An annotation's segmentation as a mask: polygons, COCO's run-length encoding (RLE), or a PNG.

RLE is decoded here because pycocotools' C code trusts it: for damaged run lengths it reads and writes past its memory.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from dataset.photos import MAX_PIXELS, opened
from utils.errors import reason, shown

POLYGONS = "a polygon needs at least three points; write polygons as [[x, y, x, y, x, y, ...], ...]"
MAX_OUTLINE = 1e6  # pixels: pycocotools allocates about 80 bytes for each


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The union of an annotation's parts, bool (height, width).

    segmentation: as in COCO's files, a list of polygons (x, y, x, y, ... in pixels), or an RLE dictionary or a list of
    them, of which polygons of fewer than three points are left out; or the Path of a PNG, see `foreground`.

    Raises ValueError, or TypeError or OverflowError, for anything else and for another size than the photo's. (The
    published code turns pixels that two polygons share into background.)
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"its photo is said to have {shown(width)} x {shown(height)} pixels")
    if isinstance(segmentation, Path):
        try:
            with opened(segmentation, ["PNG"]) as image:
                if image.size != (width, height):
                    raise ValueError(f"it is {image.width} x {image.height}, the photo is {width} x {height}")
                return foreground(image)
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"{segmentation} cannot be used ({reason(error)})") from None
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    # Annotation tools leave parts of one or two points behind, which have no area.
    parts = [part for part in parts if not isinstance(part, (list, np.ndarray)) or len(part) >= 6]
    if not parts:
        raise ValueError(POLYGONS)
    mask = np.zeros((height, width), dtype=bool)
    for part in parts:
        mask |= _decode_rle(part, height, width) if isinstance(part, dict) else _fill_polygon(part, height, width)
    return mask


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (H, W), in COCO's compressed run-length encoding, which `rasterise` takes."""
    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def foreground(image: Image.Image) -> np.ndarray:
    """What a picture of a mask shows, bool (H, W): what is not 0, with a palette not index 0, in colour not black.

    Where some pixels are transparent and others are not, what is neither transparent nor black; what is not
    transparent, if all is black. ValueError if that leaves nothing.
    """
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        coloured, opaque = pixels[:, :, :3].any(axis=2), pixels[:, :, 3] > 0
        if opaque.any() and not opaque.all():
            shape = coloured & opaque if coloured.any() else opaque
            if not shape.any():
                raise ValueError("all of it is black or transparent; save its shape in white on black")
            return shape
    if len(image.getbands()) == 1:  # a palette's indices among them: its colours say nothing
        return np.asarray(image) != 0
    return np.asarray(image.convert("RGB")).any(axis=2)


def _fill_polygon(polygon: Any, height: int, width: int) -> np.ndarray:
    points = np.asarray(polygon, dtype=np.float64)
    if points.ndim != 1 or points.size < 6 or points.size % 2:
        raise ValueError(POLYGONS)
    outline = np.diff(points.reshape(-1, 2), axis=0)
    if not (np.abs(points) <= MAX_OUTLINE).all() or np.abs(outline).sum() > MAX_OUTLINE:
        raise ValueError("a polygon has coordinates that are not finite or far outside any photo")
    return coco.decode(coco.frPyObjects([points.tolist()], height, width))[:, :, 0].astype(bool)


def _decode_rle(rle: dict, height: int, width: int) -> np.ndarray:
    size, runs = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"its run lengths are for size {shown(size)}, the photo is {[height, width]}")
    if isinstance(runs, (str, bytes)):
        runs = _unpack_runs(runs.encode("ascii") if isinstance(runs, str) else runs)
    if not isinstance(runs, list) or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError("its run lengths are not those of a mask of the photo's size")
    foreground = np.arange(len(runs)) % 2 == 1  # every other run, the first is background
    return np.repeat(foreground, runs).reshape(width, height).T  # column by column


def _unpack_runs(packed: bytes) -> list[int]:
    """COCO's compressed run lengths: 5 bits per character, from the fourth on relative to the run two before."""
    runs: list[int] = []
    value = bits = 0
    for byte in packed:
        chunk = byte - 48
        if not 0 <= chunk < 64 or bits > 30:  # a photo has fewer than 2**30 pixels
            raise ValueError("its run lengths are not in COCO's format")
        value |= (chunk & 31) << bits
        bits += 5
        if not chunk & 32:  # the last character of a run; its highest bit is the sign
            value -= (chunk & 16) << (bits - 4)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = bits = 0
    return runs
