"""Everything about several processes. The rest of the code asks: am I the main one, how many are we, sum this.

Under `torchrun` the environment says who we are; without it there is one process. Devices: one GPU per process where
there are GPUs, else the CPU.
"""

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")

BEAT = 3.0  # seconds between two signs of life
SILENT_BEATS = 12  # after so many without one a process is taken for dead


def init_processes() -> torch.device:
    """Join the process group that torchrun started, if any; returns this process's device."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ and not dist.is_initialized():
        # Long, since some steps run on the main process while the others wait; a dead process is noticed otherwise.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=6))
        leaving = threading.Event()
        watch = threading.Thread(target=_watch_the_others, args=(rank(), world_size(), leaving), daemon=True)
        watch.start()
        atexit.register(_end_watch, watch, leaving)
    return device


def _end_watch(watch: threading.Thread, leaving: threading.Event) -> None:
    """A thread that Python's own end meets inside the store's C++ code would abort the process."""
    leaving.set()
    watch.join(timeout=10)  # seconds; it is at most asking a store that may be gone


def _watch_the_others(own: int, count: int, leaving: threading.Event) -> None:
    """Ends this process when another one has been silent for `SILENT_BEATS` of this one's own.

    Own beats, not seconds: a job that was suspended as a whole goes on. Without this, a process that waits on its GPU
    for a dead one would wait until the time-out.
    """
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(seconds=30))
    heard, silent = [0] * count, [0] * count
    while max(silent) < SILENT_BEATS:
        if leaving.wait(BEAT):
            return
        for other in range(count):
            beats = _beats(store, other, int(other == own))
            silent[other] = 0 if beats != heard[other] else silent[other] + 1
            heard[other] = beats
    lost = silent.index(max(silent))
    print(
        f"process {own}: process {lost} of this run is gone, see its own message; ending", file=sys.stderr, flush=True
    )
    os._exit(1)


def _beats(store: dist.Store, process: int, more: int) -> int:
    """How often a process has been heard of, with `more`; -1 where the store is gone, which lives in process 0."""
    try:
        return store.add(f"beats/{process}", more)
    except RuntimeError:
        return -1


def usable_cores() -> int:
    """This process's part of the machine's cores."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def world_size() -> int:
    """The number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of every process's `values`; the same on all of them."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set on any process."""
    if not dist.is_initialized():
        return flag
    return bool(sum_over_processes(torch.tensor(float(flag), device=device)))


def gather(value: Item) -> list[Item]:
    """Every process's value, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Item] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Returns when every process is here: after work of the main one alone, and before a process may end."""
    gather(None)


def own_share(items: Sequence[Item]) -> list[Item]:
    """This process's part of `items`: every item belongs to exactly one process."""
    return list(items[rank() :: world_size()])


def keeping_gradients(network: nn.Module, keep: bool) -> AbstractContextManager:
    """Inside, with `keep`, gradients add up on each process for itself; without, backward shares what has added up."""
    return network.no_sync() if keep and isinstance(network, DistributedDataParallel) else nullcontext()
