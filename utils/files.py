"""Files that are whole or not there: written beside their place and renamed, so that a reader never meets a half."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError, WriteError, reason


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing bytes; it takes that name when the block ends without an error.

    Creates the folder. Raises WriteError where the operating system refuses (disk full, read-only folder, ...); what
    was under `path` before is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        words = f"cannot write {path}: {refusal.strerror or reason(refusal)}"
        raise WriteError(f"{words}; check folder and free space") from error
    finally:
        with suppress(OSError):  # a name that is too long cannot even be looked for
            temporary.unlink(missing_ok=True)


def _refusal(error: BaseException | None) -> OSError | None:
    """The operating system's error behind an error: torch raises its own on top of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


@contextmanager
def owned_by_this_run(folder: str | Path, main: bool = True) -> Iterator[None]:
    """Keep `folder` to this run while the block lasts; UserError where another run has it, or it cannot be written.

    Of the processes of a run only the `main` one asks.
    """
    if not main:
        yield
        return
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing to {folder}; wait for it or choose another folder") from None
        _remove_leftovers(folder)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` left in and below `folder` for processes that were killed."""
    for file in folder.rglob(".*.tmp"):
        writer = file.suffixes[-2][1:] if len(file.suffixes) > 1 else ""
        if writer.isdecimal() and not _is_alive(int(writer)):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON text under `path`, atomically."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=indent) + "\n").encode())


def read_json(path: str | Path, cure: str) -> Any:
    """The value in a JSON file; UserError with `cure` where the file is absent or is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {cure}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({reason(error)}); {cure}") from None
