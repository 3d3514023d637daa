"""The processes that share out IRNet's work, beyond what `utils.distributed` knows.

On machines with several GPUs one process each, started here unless torchrun did. On a CPU each process has workers of
its own with one thread each: on this kind of work one thread a core is faster than several that wait for each other.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import multiprocessing

from utils.errors import UserError, WriteError

DIED = "died, perhaps for want of memory; try a lower --num_workers"
MISTAKE = re.compile(rf"^{UserError.__module__}\.(?:{UserError.__name__}|{WriteError.__name__}): (.*)", re.MULTILINE)
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_workers(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function` of every item, in order; in `workers` processes of one thread each if that is more than one.

    The result does not depend on `workers`: alone, too, there is one thread, because the number of threads shows in
    the last bits of a convolution. `function` travels to each worker once.
    """
    if workers < 2:
        with threads(1):
            yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(function,)) as pool:
        try:
            yield from pool.map(_call, items, chunksize=2)
        except BrokenProcessPool:
            raise UserError(f"a worker process {DIED}") from None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch computes with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_worker(function: Callable) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)


def _call(item: Any) -> Any:
    return _function(item)


def start_processes(count: int, run: Callable[..., None], *arguments: Any) -> None:
    """Call `run(*arguments)` in `count` processes of one group, with the environment that torchrun would give them.

    Raises UserError where one raised it, or died.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        multiprocessing.spawn(_run_as_rank, (count, port, run, arguments), nprocs=count)
    except multiprocessing.ProcessRaisedException as error:
        mistakes = MISTAKE.findall(str(error))  # in the text of a traceback, which ends with what was raised last
        if not mistakes:
            raise
        raise UserError(mistakes[-1]) from None
    except multiprocessing.ProcessExitedException as error:
        raise UserError(f"process {error.error_index} {DIED}") from None


def _run_as_rank(rank: int, count: int, port: int, run: Callable[..., None], arguments: tuple) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    run(*arguments)
