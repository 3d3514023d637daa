"""Mistakes of the user, reported in one line.

Whoever finds something wrong with what comes from outside raises `UserError` with a sentence that names the thing and
says what to do. `utils.start.run_script` prints that sentence and exits with its status.
"""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """One sentence for the user: what is wrong with which thing, and what to do about it."""

    status = 2  # with which the script exits


class WriteError(UserError):
    """A file could not be written. The next one cannot either, so nobody should carry on after it."""


class ResumeError(UserError):
    """What an interrupted run left cannot be continued. A status of its own tells the pipeline to start over."""

    status = 3


@contextmanager
def resuming() -> Iterator[None]:
    """A UserError inside says that what an interrupted run left cannot be continued."""
    try:
        yield
    except UserError as error:
        raise ResumeError(str(error)) from error


def one_line(error: BaseException | str) -> str:
    """A line for the terminal, or the message of a UserError, even with a data loader's traceback wrapped around it.

    Without line breaks and control characters: names in a hostile file must not steer the terminal.
    """
    message = as_unicode(str(error)).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
    return "".join(character if character.isprintable() else " " for character in message)


def as_unicode(text: str) -> str:
    """The text with U+FFFD for what is not Unicode: half an emoji, bytes of a name or argument in another encoding."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reason(error: BaseException) -> str:
    """For a message: the key that is missing, else the first line of a library's error, else the error's name."""
    if isinstance(error, KeyError) and error.args:
        return f"no {shown(error.args[0])}"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def shown(value: Any) -> str:
    """A value from a file, for a message: short, and without line breaks or control characters."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of thousands of digits
        return f"<{type(value).__name__}>"
