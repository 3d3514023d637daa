"""The nouns of the data: a ref, and a split of refs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Reference:
    """One object of one photo with the sentences that name it."""

    index: int  # in the split
    ref_id: int | str
    image_id: int | str
    photo: str  # path below the split's image root
    size: tuple[int, int] | None  # (H, W) of the photo, in pixels; None where the annotations do not say
    sentences: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None  # x1, y1, x2, y2, in pixels
    segmentation: Any = None  # polygons or RLE as in the file, or the Path of a PNG; None: not annotated
    category: int | str | None = None

    @property
    def name(self) -> str:
        """What the ref's files are called, see dataset/artifacts.py."""
        return f"{self.index}_{self.image_id}"


@dataclass(frozen=True)
class Split:
    """The refs of one split, in the order of the annotation file."""

    dataset: str
    name: str
    image_root: Path
    references: list[Reference]

    def photo_path(self, reference: Reference) -> Path:
        return self.image_root / reference.photo

    def part(self, references: list[Reference]) -> "Split":
        """The split with only some of its refs, which keep their indices."""
        return replace(self, references=references)
