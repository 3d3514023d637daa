"""Pictures for people: heat over a photo, a mask over a photo, many small pictures on one sheet. RGB throughout."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import imageio.v3 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.errors import UserError, one_line
from utils.files import atomic_write

VEIL = (40, 60, 120)  # a blue in which neither dark nor light things vanish
GAP = 4  # pixels between the pictures of a sheet; four times that between groups
Item = TypeVar("Item")


@contextmanager
def optional(picture: str | Path) -> Iterator[None]:
    """The block draws a picture that no result depends on: a UserError in it costs a warning, on any process."""
    try:
        yield
    except UserError as error:
        print(f"warning: {picture} cannot be drawn: {one_line(error)}", file=sys.stderr, flush=True)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def heat_overlay(photo: np.ndarray, response: np.ndarray) -> np.ndarray:
    """A response map painted over its photo in OpenCV's JET colours.

    photo: uint8 (H, W, 3). response: float (h, w), 0..1, of the whole photo. Returns uint8 (H, W, 3).
    """
    response = cv2.resize(response, photo.shape[1::-1], interpolation=cv2.INTER_AREA)
    levels = np.round(response.clip(0, 1) * 255).astype(np.uint8)
    heat = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]
    return np.round(0.6 * heat + 0.4 * photo).astype(np.uint8)


def mask_overlay(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo inside a mask, veiled outside.

    photo: uint8 (H, W, 3). mask: bool (h, w), of the whole photo. Returns uint8 (H, W, 3).
    """
    inside = cv2.resize(mask.astype(np.uint8), photo.shape[1::-1], interpolation=cv2.INTER_AREA)  # 0 or 1: the majority
    return np.where(inside[..., None], photo, photo // 5 + np.array(VEIL, dtype=np.uint8))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], across: int = 1, tile: int = 120, headings: Sequence[str] | None = None
) -> np.ndarray:
    """Rows of pictures, each picture fitted into a square of `tile` pixels, with `across` rows side by side.

    rows: at least one, of equally many uint8 (H, W, 3). headings: one line of text per column, above the first row of
    each group of columns. Returns uint8 (height, width, 3) on white.
    """
    across = min(across, len(rows))
    group = len(rows[0]) * (tile + GAP) + 3 * GAP
    above = GAP + (tile // 6 if headings else 0)  # the headings' line
    height = -(-len(rows) // across) * (tile + GAP) + above
    sheet = np.full((height, across * group, 3), 255, dtype=np.uint8)
    for index, row in enumerate(rows):
        top = index // across * (tile + GAP) + above
        for column, picture in enumerate(row):
            left = index % across * group + column * (tile + GAP) + GAP
            small = fit_into(picture, tile)
            sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
            if headings and index < across:
                sheet[:above, left : left + tile] = _draw_text(headings[column], tile)[:above]
    return sheet


def text_tile(text: str, tile: int) -> np.ndarray:
    """Text, wrapped and cut off where it is too long, as a picture uint8 (tile, tile, 3)."""
    return _draw_text("\n".join(textwrap.wrap(text, 18)[:8]), tile)


def _draw_text(lines: str, tile: int) -> np.ndarray:
    picture = Image.new("RGB", (tile, tile), "white")
    font = ImageFont.load_default(size=tile / 11)  # 18 characters fit into a line, and 8 lines into the tile
    ImageDraw.Draw(picture).multiline_text((GAP, GAP), lines, fill="black", font=font)
    return np.array(picture)


def save_png(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) or (H, W) as a PNG, atomically."""
    with atomic_write(path) as file:
        file.write(imageio.imwrite("<bytes>", picture, extension=".png"))


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as the bytes of a JPEG file."""
    return imageio.imwrite("<bytes>", picture, extension=".jpg", quality=85)


def fit_into(picture: np.ndarray, tile: int) -> np.ndarray:
    """The picture resized so that its longer side has `tile` pixels."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
