"""Whether a pass over photos may keep the files that it finds: a stamp tells what they were made from.

Without `--resume` a pass starts over and removes its old outputs first, so that no mask of an earlier run survives
among the new ones.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.distributed import barrier, is_main
from utils.errors import ResumeError, UserError, WriteError, resuming
from utils.files import read_json, write_json

START_OVER = "run without --resume to start over"
INPUTS = {"response maps": "other response maps", "IR labels": "other IR labels", "checkpoint": "another checkpoint"}
INPUTS |= {"IRNet's masks": "other masks of IRNet"}
BLOCK, MUCH = 4096, 1 << 30  # bytes: so much is read in seconds


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of the files' names, sizes and contents; a file that is missing counts too.

    Of more than `MUCH`, only some blocks are read of each file, evenly spaced.
    """
    sizes = {file: file.stat().st_size if file.is_file() else None for file in files}
    stride = BLOCK * max(1, sum(size or 0 for size in sizes.values()) // MUCH)
    digest = hashlib.sha256()
    for path, size in sizes.items():
        digest.update(f"{path.name} {size}\n".encode())
        if size:
            with path.open("rb") as file:
                for start in range(0, size, stride):
                    file.seek(start)
                    digest.update(file.read(BLOCK))
    return digest.hexdigest()


def start_pass(stamp: Path, made_from: dict[str, Any], outputs: Iterable[Path], resume: bool) -> None:
    """If `resume` and there is a stamp, check that it agrees with `made_from`; else remove `outputs` and write one.

    made_from: settings and, under the names in `INPUTS`, fingerprints of the input files. ResumeError names the first
    difference in these, UserError in settings. The main process does this while the others wait.
    """
    if is_main() and resume and stamp.is_file():
        with resuming():
            before = read_json(stamp, START_OVER)
            if not isinstance(before, dict):
                raise UserError(f"{stamp} is not a stamp; {START_OVER}")
        for key, value in made_from.items():
            old = before.get(key)
            if old != value:
                difference = INPUTS.get(key, f"{key} {old}, not {value}")
                kind = UserError if key in before and key not in INPUTS else ResumeError  # other flags, or other files
                raise kind(f"cannot resume {stamp.stem}: it was started with {difference}; {START_OVER}")
    elif is_main():
        try:
            for output in filter(Path.is_file, outputs):
                output.unlink()
        except OSError as error:
            raise WriteError(f"cannot remove {error.filename}: {error.strerror}; check the folder") from None
        write_json(stamp, made_from, indent=1)
    barrier()
