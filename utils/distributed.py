"""Everything about several processes. The rest of the code asks: am I the main one, how many are we, gather this.

Under `torchrun` the environment says who we are; without it there is one process. Devices: one GPU per process where
there are GPUs, else the CPU. When a process dies, torchrun's agent ends the others.
"""

import atexit
import gc
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.memory import keep_freed_memory

Item = TypeVar("Item")


def started_in_a_group() -> bool:
    """Whether the environment is one of torchrun's. Job systems set some of its variables for reasons of their own."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _of_group(variable: str, alone: int) -> int:
    return int(os.environ.get(variable, alone)) if started_in_a_group() else alone


def init_processes() -> torch.device:
    """Join the process group that torchrun started, if any; returns this process's device."""
    device = torch.device("cpu")
    keep_freed_memory()
    if torch.cuda.is_available():
        device = torch.device("cuda", _of_group("LOCAL_RANK", alone=0))
        torch.cuda.set_device(device)
    if started_in_a_group() and not dist.is_initialized():
        # Processes that share out hours of work finish minutes apart: longer than NCCL's own time-out.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=1))
        atexit.register(_leave)
    return device


def _leave() -> None:
    """Let go of networks, then of the process group: gloo aborts now and then where a network outlives its group."""
    gc.collect()
    dist.destroy_process_group()


def world_size() -> int:
    """The number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and prints for all."""
    return rank() == 0


def all_gather(value: Item) -> list[Item]:
    """Every process's value, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Item] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Return once every process has arrived here. Scripts end with it: nobody leaves while another needs them."""
    all_gather(None)


def shard(items: Sequence[Item]) -> list[Item]:
    """This process's part of `items`: every item belongs to exactly one process."""
    return list(items[rank() :: world_size()])


def usable_cores() -> int:
    """This process's share of the machine's cores."""
    return max(1, len(os.sched_getaffinity(0)) // _of_group("LOCAL_WORLD_SIZE", alone=1))


def data_parallel(network: nn.Module, device: torch.device, compiled: bool = False) -> nn.Module:
    """The network, `compiled` or not; with several processes one whose gradients are averaged over them.

    On GPUs batch statistics are shared, too. On CPUs each process normalises its own batch: PyTorch has no
    synchronised batch norm there.
    """
    if compiled:
        network.compile()  # in place: parameters keep their names, and evaluation is not compiled
    if world_size() == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network)


def accumulating(network: nn.Module, more: bool) -> AbstractContextManager:
    """While `more` batches follow in the same step, each process adds up its gradients without averaging them yet."""
    return network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext()
