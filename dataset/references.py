"""The nouns of the data: a ref, and a split of refs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ABSENT = ()  # the segmentation of a ref whose sentences name nothing in the photo; no file's own value reads as a tuple


@dataclass(frozen=True, slots=True)
class Reference:
    """What some sentences name in one photo: nearly always an object, else several, or nothing that is there."""

    index: int  # in the split
    ref_id: int | str
    image_id: int | str
    photo: str  # path below the split's image root
    size: tuple[int, int] | None  # (H, W) of the photo, in pixels; None where the annotations do not say
    sentences: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None  # x1, y1, x2, y2, in pixels, around all objects
    segmentation: Any = None  # polygons or RLE as in the file, or the Path of a PNG; ABSENT; None: not annotated
    category: int | str | tuple[int, ...] | None = None
    attributes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the ref's files are called, see dataset/artifacts.py."""
        return f"{self.index}_{self.image_id}"

    @property
    def absent(self) -> bool:
        """Whether the annotators say that nothing in the photo fits the sentences."""
        return self.segmentation == ABSENT


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

    def present(self) -> "Split":
        """The split without its absent refs, whose sentences are not true of their photos."""
        return self.part([reference for reference in self.references if not reference.absent])
