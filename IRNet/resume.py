"""Whether a pass may keep what it finds: a stamp in the work space tells what its outputs were made from.

Without `--resume` a run starts over: it removes the stamps of its passes, and each pass removes its old outputs, so
that no mask of an earlier run survives among the new ones.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.distributed import barrier, is_main
from utils.errors import UserError, WriteError
from utils.files import read_json, write_json

START_OVER = "run without --resume to start over"
INPUTS = {"response maps": "other response maps", "IR labels": "other IR labels", "checkpoint": "another checkpoint"}
INPUTS |= {"sentences": "other photos or sentences"}  # of predict.py


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of the files' names, sizes and modification times; a file that is missing counts too."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat() if file.is_file() else None
        facts = f"{status.st_size} {status.st_mtime_ns}" if status else "missing"
        digest.update(f"{file.name} {facts}\n".encode())
    return digest.hexdigest()


def start_pass(stamp: Path, made_from: dict[str, Any], outputs: Iterable[Path], resume: bool) -> None:
    """If `resume` and there is a stamp, check that it agrees with `made_from`; else remove `outputs` and write one.

    made_from: settings and, under the names in `INPUTS`, fingerprints of the input files. UserError names the first
    difference. The main process does this while the others wait.
    """
    if is_main() and resume and stamp.is_file():
        before = read_json(stamp, START_OVER)
        for key, value in made_from.items():
            old = before.get(key) if isinstance(before, dict) else None
            if old != value:
                difference = INPUTS.get(key, f"{key} {old}, not {value}")
                raise UserError(f"cannot resume {stamp.stem}: it was started with {difference}; {START_OVER}")
    elif is_main():
        try:
            for output in filter(Path.is_file, outputs):
                output.unlink()
        except OSError as error:
            raise WriteError(f"cannot remove {error.filename}: {error.strerror}; check the folder") from None
        write_json(stamp, made_from, indent=1)
    barrier()
