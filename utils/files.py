"""Files that are written atomically: beside their place and then renamed, so that nobody ever reads half of one."""

import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError, WriteError, reason

TEMPORARY = re.compile(r"\.tris\..+\.(\d+)\.tmp", re.DOTALL)  # nobody else's file is named so; the number is the pid


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing bytes; renamed to `path` when the block ends without an error.

    Creates the folder. Raises WriteError where the operating system refuses (disk full, read-only folder, ...); an
    earlier file under `path` is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".tris.{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        refusal = error
        while not isinstance(refusal, OSError):  # torch raises its own error on top of the operating system's
            if refusal.__context__ is None:
                raise
            refusal = refusal.__context__
        words = f"cannot write {path}: {refusal.strerror or reason(refusal)}"
        raise WriteError(f"{words}; check folder and free space") from error
    finally:
        with suppress(OSError):  # a name that is too long cannot even be looked for
            temporary.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: str | Path, main: bool = True, below: Sequence[str] = ()) -> Iterator[None]:
    """Lock `folder` for this run; UserError where another run has locked it, or where it cannot be written.

    Only the `main` process of a run takes the lock. Where the file system has no locks it warns, and the work goes on.
    What killed runs left of unfinished files is removed from `folder` and from those `below` that are the run's own.
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
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(f"another run is writing to {folder}; wait for it or choose another folder") from None
            problem = f"{folder} cannot be locked ({error.strerror}); let no other run write there"
            print(f"warning: {problem}", file=sys.stderr)
        else:
            for own in (folder, *(folder / name for name in below)):
                _remove_leftovers(own)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove what `atomic_write` left in `folder` itself when its process was killed; what cannot be removed stays."""
    for file in folder.glob(".tris.*.tmp"):
        name = TEMPORARY.fullmatch(file.name)
        if name and not Path("/proc", name[1]).exists() and file.is_file() and not file.is_symlink():
            with suppress(OSError):
                file.unlink()


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON text under `path`, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=indent) + "\n").encode())


def from_utf8(content: bytes) -> str:
    """UTF-8 with or without a byte order mark as text; ValueError for JSON in another encoding."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # which no JSON has; UTF-16 without a mark has many
        raise ValueError("it is not in UTF-8; save it as UTF-8")
    return text


def read_json(path: str | Path, hint: str, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """The value in a JSON file; UserError with `hint` where the file is absent or not JSON.

    object_hook: what makes another value of each object as soon as it is parsed.
    """
    try:
        return json.loads(from_utf8(Path(path).read_bytes()), object_hook=object_hook)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({reason(error)}); {hint}") from None
