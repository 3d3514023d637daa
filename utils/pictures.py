"""Pictures for people: heat over a photo, a mask over a photo, many small pictures on one sheet. RGB throughout."""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.files import replacing

HEAT_SHARE = 0.6  # of the heat, over 0.4 of the photo
VEIL = (40, 60, 120)  # a blue that neither dark nor light things vanish in
GAP = 4  # pixels between the pictures of a sheet; four times that between groups
Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread: those to show of many."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def heat_overlay(photo: np.ndarray, response: np.ndarray) -> np.ndarray:
    """A response map painted over its photo in OpenCV's JET colours.

    photo: uint8 (H, W, 3). response: float (H, W), 0..1. Returns uint8 (H, W, 3).
    """
    levels = np.round(response.clip(0, 1) * 255).astype(np.uint8)
    heat = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]
    return np.round(HEAT_SHARE * heat + (1 - HEAT_SHARE) * photo).astype(np.uint8)


def mask_overlay(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo inside a mask, veiled outside. photo: uint8 (H, W, 3). mask: bool (H, W). Returns uint8 (H, W, 3)."""
    return np.where(mask[..., None], photo, photo // 5 + np.array(VEIL, dtype=np.uint8))


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], across: int = 1, tile: int = 120) -> np.ndarray:
    """Rows of pictures, each fitted into a square of `tile` pixels, `across` rows side by side.

    rows: at least one, of equally many uint8 (H, W, 3). Returns uint8 (height, width, 3) on white.
    """
    columns = len(rows[0])
    group = columns * (tile + GAP) + 3 * GAP
    height = -(-len(rows) // across) * (tile + GAP) + GAP
    sheet = np.full((height, min(across, len(rows)) * group, 3), 255, dtype=np.uint8)
    for index, row in enumerate(rows):
        top = index // across * (tile + GAP) + GAP
        for column, picture in enumerate(row):
            small = fit_into(picture, tile)
            left = index % across * group + column * (tile + GAP) + GAP
            sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return sheet


def text_tile(text: str, tile: int) -> np.ndarray:
    """Text, wrapped and cut off where it is too long, as a picture uint8 (tile, tile, 3)."""
    size = tile / 11  # of the font: some 18 characters fit into a line, and 8 lines
    picture = Image.new("RGB", (tile, tile), "white")
    lines = "\n".join(textwrap.wrap(text, 18)[:8])
    ImageDraw.Draw(picture).multiline_text((GAP, GAP), lines, fill="black", font=ImageFont.load_default(size))
    return np.array(picture)


def save_png(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) or (H, W) as a PNG, atomically."""
    with replacing(path) as file:
        Image.fromarray(picture).save(file, format="PNG", optimize=True)


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as the bytes of a JPEG file."""
    return _encoded(picture, format="JPEG", quality=85)


def png(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) or (H, W) as the bytes of a PNG file."""
    return _encoded(picture, format="PNG")


def _encoded(picture: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()


def fit_into(picture: np.ndarray, tile: int) -> np.ndarray:
    """The picture resized so that its longer side has `tile` pixels."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
