"""Everything about several processes. The rest of the code asks: am I the main one, how many are we, sum this.

Under `torchrun` the environment says who we are; without it there is one process. Devices: one GPU per process where
there are GPUs, else the CPU.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")


def init_processes() -> torch.device:
    """Join the process group that torchrun started, if any; returns this process's device."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ and not dist.is_initialized():
        # Long, since some steps run on the main process while the others wait. When a process dies, whoever started
        # them ends the others (torchrun, torch.multiprocessing); no time-out is needed for that.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=6))
    return device


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
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


def own_share(items: Sequence[Item]) -> list[Item]:
    """This process's part of `items`: every item belongs to exactly one process."""
    return list(items[rank() :: world_size()])


def keeping_gradients(network: nn.Module, keep: bool) -> AbstractContextManager:
    """Inside, with `keep`, gradients add up on each process for itself; without, backward shares what has added up."""
    return network.no_sync() if keep and isinstance(network, DistributedDataParallel) else nullcontext()
