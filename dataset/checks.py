"""What data files may say: sentences, paths, ids and sizes, each checked where it enters."""

import math
from collections.abc import Iterable
from pathlib import PureWindowsPath
from typing import Any

from dataset.photos import MAX_PIXELS
from utils.errors import UserError, shown

MAX_SENTENCE = 2000  # characters; a longer "sentence" is a damaged file
MAX_SENTENCES = 1000  # of one ref
MAX_ID = 200  # characters


def checked_sentences(sentences: Any, where: str) -> tuple[str, ...]:
    """A ref's sentences; UserError, naming the place `where`, when they are no list of usable texts."""
    if not isinstance(sentences, list) or not sentences:
        raise UserError(f"{where} has no list of sentences; give it at least one, or remove it")
    if len(sentences) > MAX_SENTENCES:
        raise UserError(f"{where} has {len(sentences)} sentences; leave at most {MAX_SENTENCES}")
    return tuple(checked_sentence(sentence, where) for sentence in sentences)


def checked_sentence(sentence: Any, where: str, cure: str = "remove it from the annotations") -> str:
    """The sentence itself; UserError, naming the place `where` and the `cure`, when it is no usable text."""
    if not isinstance(sentence, str):
        raise UserError(f"{where} has a sentence that is no text ({shown(sentence)}); {cure}")
    if not sentence.strip():
        raise UserError(f"{where} has an empty sentence; {cure}")
    if len(sentence) > MAX_SENTENCE:
        raise UserError(f"{where} has a sentence of {len(sentence)} characters; shorten it to at most {MAX_SENTENCE}")
    if not _is_unicode(sentence):
        raise UserError(f"{where} has a sentence that is no valid Unicode; write it as UTF-8")
    return sentence


def checked_photo(path: Any, where: str, what: str = "photo") -> str:
    """A relative path that stays below the image root, on any system; UserError otherwise, which calls it `what`."""
    if not isinstance(path, str) or not path.strip() or "\0" in path or not _is_unicode(path):
        raise UserError(f"{where} names no {what}; give a path below the image folder")
    if PureWindowsPath(path).anchor or ".." in PureWindowsPath(path).parts:  # what leaves the folder anywhere
        raise UserError(f"{where} names the {what} {shown(path)} outside the image folder; give a path below it")
    if "\\" in path:
        raise UserError(f"{where} names the {what} {shown(path)}; write / instead of \\")
    return path


def checked_id(value: Any, what: str, where: str) -> int | str:
    """An id of a ref or an image, which names files; UserError when it is neither a number nor a short plain name."""
    if isinstance(value, int) and abs(value) < 1 << 63:
        return int(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable() or set(value) & set("/\\"):
        raise UserError(
            f"{where} has no usable {what} ({shown(value)}); write a number, or a short name without / or \\"
        )
    return value


def checked_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Height and width of a photo in pixels; UserError when no photo is so large or so small."""
    height, width = int(height), int(width)
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise UserError(f"{where} claims a photo of {shown(width)} x {shown(height)} pixels; correct the annotation")
    return height, width


def checked_box(values: Any) -> tuple[float, float, float, float]:
    """Four numbers; TypeError or ValueError when they are not."""
    a, b, c, d = (float(value) for value in values)
    if not all(map(math.isfinite, (a, b, c, d))):
        raise ValueError("a box that is not finite")
    return a, b, c, d


def require_unique(ids: Iterable[Any], what: str, where: str) -> None:
    """UserError that names the first id that occurs twice."""
    seen: set[Any] = set()
    for value in ids:
        require_new(value, seen, f"{what} {shown(value)}", where)


def require_new(value: Any, seen: set[Any], what: str, where: str) -> None:
    """UserError when `value` has been seen before; from now on it has."""
    if value in seen:
        raise UserError(f"{where} has the {what} twice; remove one of the two")
    seen.add(value)


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: a lone surrogate, which JSON can spell, cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
