"""A bound on what reading a file may take, so that a few hostile bytes cannot ask for all of the machine's memory."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 1 << 30  # bytes that reading any file may take, beside
TIMES = 64  # the size of the file, which plain Python values can exceed tenfold


@contextmanager
def bounded_by(path: str | Path) -> Iterator[None]:
    """Inside the block the process may grow by 1 GiB and 64 times the file's size; MemoryError beyond that.

    Linux only: elsewhere the size of a process is not known, and nothing is bounded. OSError where there is no file.
    """
    room = ROOM + TIMES * Path(path).stat().st_size
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except FileNotFoundError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + room
    allowed = min([wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
