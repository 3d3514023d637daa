"""The nouns of the data: a ref, and a split of refs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.artifacts import item_name
from utils.errors import UserError

MAX_SENTENCE = 2000  # characters; a longer "sentence" is a damaged file


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


def checked_sentence(sentence: Any, where: str) -> str:
    """The sentence itself; UserError, naming the place `where`, when it is no usable text."""
    if not isinstance(sentence, str) or not sentence.strip():
        raise UserError(f"{where} has an empty sentence; remove it from the annotations")
    if len(sentence) > MAX_SENTENCE:
        raise UserError(f"{where} has a sentence of {len(sentence)} characters; shorten it to at most {MAX_SENTENCE}")
    return sentence


def checked_photo(path: Any, where: str) -> str:
    """A relative path that stays below the image root; UserError otherwise."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise UserError(f"{where} names no photo; give a path below the image folder")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise UserError(f"{where} names the photo '{path}' outside the image folder; give a path below it")
    return path
