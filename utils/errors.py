"""Mistakes of the user, reported in one line.

Whoever finds something wrong with what comes from outside raises `UserError` with a sentence that names the thing and
says what to do. A script wraps its `main` in `run_script`, which prints that sentence and exits with its status.
"""

import reprlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
    return "".join(character if character.isprintable() else " " for character in message)


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


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`: a `UserError` becomes a line on standard error and its exit status, Ctrl-C 130."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {one_line(error)}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
