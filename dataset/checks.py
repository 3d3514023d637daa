"""What annotation files may say: sentences, paths, and ids that become file names. `where` names a place in a file."""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from utils.errors import UserError, as_unicode, shown


def checked_sentences(sentences: Any, where: str) -> tuple[str, ...]:
    """The sentences of a ref; UserError where there are none, or one is not text or is empty."""
    if not isinstance(sentences, list) or not sentences:
        raise UserError(f"{where} has no list of sentences; give it at least one sentence, or remove it")
    return tuple(checked_sentence(sentence, where) for sentence in sentences)


def checked_sentence(sentence: Any, where: str, hint: str = "correct or remove it") -> str:
    """The sentence, as Unicode; UserError where it is not text or is empty."""
    if not isinstance(sentence, str):
        raise UserError(f"{where} has a sentence that is not text ({shown(sentence)}); {hint}")
    if not sentence.strip():
        raise UserError(f"{where} has an empty sentence; {hint}")
    return as_unicode(sentence)


def checked_path(path: Any, where: str, what: str = "photo") -> str:
    """A path that stays below the data set's folder, on any system; UserError, which calls it `what`, for another.

    Returned in one spelling, `a/b.jpg` for `./a//b.jpg`, because photos are told apart by their paths.
    """
    if not isinstance(path, str) or not path.strip():
        raise UserError(f"{where} names no {what}; give its path below the folder of the data set")
    if PureWindowsPath(path).anchor or ".." in PureWindowsPath(path).parts:  # also splits at / and finds a leading /
        raise UserError(f"{where} names a {what} outside the folder of the data set ({shown(path)}); move it there")
    return str(PurePosixPath(path))


def checked_name(value: Any, where: str) -> int | str:
    """An id that can name a file: a whole number of at most 18 digits, or text without separators; else UserError."""
    if isinstance(value, str):
        usable = value != "" and value.isprintable() and not set(value) & set("/\\")
    else:
        usable = isinstance(value, int) and abs(value) < 10**18
    if not usable:
        raise UserError(f"{where} has an id that cannot name a file ({shown(value)}); use a number or plain text")
    return value
