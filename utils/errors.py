"""Mistakes of the user, told in one line.

Whoever finds that something from outside is wrong raises `UserError` with a sentence that names the thing and the
cure. A script wraps its `main` in `run_script`, which prints that sentence and leaves with status 2.
"""

import reprlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class UserError(Exception):
    """One sentence for the user: what is wrong with which thing, and what to do about it."""


class InterruptionError(Exception):
    """A signal asked a training to end, and its state is saved."""

    def __init__(self, signum: int):
        super().__init__("interrupted; the training is saved, go on with the same command and --resume")
        self.status = 128 + signum


class WriteError(UserError):
    """A file could not be written: what follows cannot be written either, so nobody should go on after it."""


def one_line(error: BaseException) -> str:
    """The sentence of an error, also when a data loader's worker has wrapped its traceback around it."""
    return str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip().replace("\n", " ")


def reason(error: BaseException) -> str:
    """Why a library refused something, for a message: its first words, or the error's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def shown(value: Any) -> str:
    """A value out of a file, for a message: short whatever its size, and without line breaks or control characters."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of thousands of digits
        return f"a {type(value).__name__}"


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a `UserError` becomes one line on standard error and exit status 2, Ctrl-C status 130."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except InterruptionError as interruption:
        print(f"{Path(sys.argv[0]).name}: {interruption}", file=sys.stderr)
        sys.exit(interruption.status)
    except KeyboardInterrupt:
        sys.exit(130)
