"""The nouns of the data: a ref, and a split of refs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.artifacts import item_name
from utils.errors import UserError

Tell = Callable[[UserError], None]  # what to do about a ref that cannot be used


@dataclass(frozen=True, slots=True)
class Reference:
    """One object of one photo with the sentences that name it."""

    index: int  # its place in the split
    ref_id: int | str
    image_id: int | str
    photo: str  # path below the split's image root
    height: int | None  # of the photo, pixels; None where the annotations do not say
    width: int | None
    sentences: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None  # x1, y1, x2, y2, pixels
    segmentation: Any = None  # polygons, run lengths or the path of a PNG, as in the file; None: not annotated
    category: int | str | None = None

    @property
    def name(self) -> str:
        return item_name(self.index, self.image_id)


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
        """The split with some of its refs alone; these keep their numbers."""
        return replace(self, references=references)


def strict(error: UserError) -> None:
    """The first ref that cannot be used ends the reading."""
    raise error
