"""How a script starts and ends. Scripts import this before everything else, which takes seconds to import.

From here on Ctrl-C ends a script quietly with status 130: at once until its `main` runs, then as an exception.
"""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from utils.errors import UserError, WriteError, one_line
from utils.memory import lacks_memory

INTERRUPTED, NOBODY_READS = 130, 141  # as a shell reports SIGINT and SIGPIPE
MAIN = os.getpid()


def _leave(*_: Any) -> None:
    os._exit(INTERRUPTED)


def _interrupt(*_: Any) -> None:
    if os.getpid() == MAIN:  # which also ends the loaders' workers
        _on_interrupt(_leave)  # should it happen again
        raise KeyboardInterrupt


def _on_interrupt(handler: Callable[..., None]) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, handler)


_on_interrupt(_leave)


def _unraisable(ignored: Any) -> None:
    """For exceptions in destructors and while a worker is forked, which Python cannot raise."""
    if ignored.exc_type is KeyboardInterrupt:
        _leave()
    sys.__unraisablehook__(ignored)


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


class _Output:
    """Standard output or error, which may be closed before the script ends: `| head`, or a lost connection.

    Then the script ends; or, if it is `lasting`, goes on and prints to nobody.
    """

    def __init__(self, stream: TextIO | None, lasting: bool):
        self.stream = stream or os.fdopen(_nowhere(), "w")  # None: closed from the beginning
        self.lasting = lasting
        self.stream.reconfigure(errors="backslashreplace")  # names and sentences need not be Unicode

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> None:
        self._try(self.stream.write, text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable, *words: str) -> None:
        try:
            action(*words)
        except OSError as error:
            os.dup2(_nowhere(), self.stream.fileno())
            if isinstance(error, BrokenPipeError) and not self.lasting:
                sys.exit(NOBODY_READS)
            if not self.lasting:
                raise WriteError(f"cannot write what is printed: {error.strerror}; check where it goes") from None


def run_script(main: Callable[[], None], lasting: bool = False) -> None:
    """Run a script's `main`; a `UserError` becomes one line on standard error and its exit status, Ctrl-C 130.

    lasting: go on when nobody can read any more what is printed. A training does; all others end.
    """
    with redirect_stdout(_Output(sys.stdout, lasting)), redirect_stderr(_Output(sys.stderr, lasting)):
        hook = sys.unraisablehook
        status = _status(main)
        sys.unraisablehook = hook
    if status:
        sys.exit(status)


def _status(main: Callable[[], None]) -> int:
    try:
        try:
            sys.unraisablehook = _unraisable
            _on_interrupt(_interrupt)
            main()
        finally:
            sys.stdout.flush()
            _on_interrupt(_leave)
    except (Exception, KeyboardInterrupt) as error:
        if _was_interrupted(error):
            return INTERRUPTED
        refusal = one_line(error) if isinstance(error, UserError) else _refused_by_the_system(error)
        if not refusal:
            raise
        print(f"{Path(sys.argv[0]).name}: {refusal}", file=sys.stderr)
        sys.unraisablehook = lambda _: None  # a loader that has not started cannot be destroyed properly either
        return getattr(error, "status", UserError.status)
    return 0


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or a library's error on top of it: torch raises its own while it writes a file."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _was_interrupted(error.__context__))


def _refused_by_the_system(error: Exception) -> str:
    """A sentence about memory or shared memory that is full; nothing for all other errors."""
    words, no_semaphore = str(error), isinstance(error, OSError) and error.errno == errno.ENOSPC
    if no_semaphore or ("DataLoader worker" in words and "shared memory" in words):
        return "shared memory (/dev/shm) is full; use --num_workers 0, or docker run --shm-size=2g"
    if "DataLoader worker (pid" in words:
        return "the system ended a process that reads photos, probably for want of memory; use fewer --num_workers"
    if lacks_memory(error):
        lacking = re.search(r"allocate ([\d.]+ \w+)", words)
        more = f" ({lacking[1]} more were asked for)" if lacking else ""
        return f"there is too little memory{more}; use smaller batches or photos, or end other programs"
    return ""
