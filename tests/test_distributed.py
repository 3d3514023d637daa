"""Several processes on CPUs: batch statistics, gradients, and what becomes of the others when one dies."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clip import build_clip
from IRNet.processes import start_processes
from model.losses import Stage2Criterion
from model.stage2 import SegmentationNetwork
from tests.conftest import ROOT
from utils.distributed import init_processes, keeping_gradients, rank
from utils.sync_batch_norm import SyncBatchNorm, synchronise


def new_network() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(build_clip("toy", pretrained=False)).double().train()


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 64, 64, dtype=torch.float64, generator=generator)
    images *= torch.arange(1, 9)[:, None, None, None]  # so that the halves have other statistics
    tokens = torch.randint(1, 500, (8, 6), generator=generator)
    mask = (torch.rand(8, 1, 64, 64, generator=generator) > 0.5).double()
    return {"image": images, "tokens": tokens, "mask": mask}


def backward(network: nn.Module, part: dict[str, torch.Tensor], share: float = 1) -> None:
    losses = Stage2Criterion()(network(part["image"], part["tokens"]), part)
    (share * sum(losses.values())).backward()


def figures(network: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients and buffers by name."""
    gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return gradients | dict(network.named_buffers())


def half_each(folder) -> None:
    init_processes()
    torch.set_num_threads(1)
    network = synchronise(new_network())
    parallel = DistributedDataParallel(network)
    backward(parallel, {name: value[4 * rank() :][:4] for name, value in batch().items()})
    torch.save(figures(network), folder / f"whole{rank()}.pth")
    network.zero_grad()
    network.load_state_dict(new_network().state_dict())
    for number in range(2):  # the same refs in two parts, each with statistics of its own
        with keeping_gradients(parallel, number == 0):
            backward(parallel, {name: value[4 * rank() + 2 * number :][:2] for name, value in batch().items()}, 0.5)
    torch.save(figures(network), folder / f"accumulated{rank()}.pth")


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of all entries, relative to the largest one of their tensor; a gradient that is 0 but for rounding stays so."""
    assert found.keys() == expected.keys()
    scales = {name: max(float(value.abs().max()), 1e-6) for name, value in expected.items()}
    return max(float((found[name] - expected[name]).abs().max()) / scale for name, scale in scales.items())


def test_gradients_of_two_processes_are_those_of_one_with_the_same_batch(tmp_path):
    start_processes(2, half_each, tmp_path)
    network = new_network()
    backward(network, batch())
    whole = figures(network)
    assert sum(name.startswith("gradient") for name in whole) > 100
    network = new_network()
    for number in range(2):
        part = [2 * number, 2 * number + 1, 2 * number + 4, 2 * number + 5]
        backward(network, {name: value[part] for name, value in batch().items()}, 0.5)
    for name, expected in {"whole": whole, "accumulated": figures(network)}.items():
        for number in range(2):
            found = torch.load(tmp_path / f"{name}{number}.pth", weights_only=True)
            assert largest_difference(found, expected) < 1e-9


def test_a_synchronised_network_keeps_its_names_and_parameters():
    network = new_network()
    before = dict(network.named_parameters())
    names = list(network.state_dict())
    synchronise(network)
    assert any(isinstance(module, SyncBatchNorm) for module in network.modules())
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())
    assert list(network.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in network.named_parameters())


LEFT_BEHIND = """
import os, signal, sys, time
from utils import distributed
distributed.BEAT = 0.2
distributed.init_processes()
distributed.gather(None)
print("together", flush=True)
if distributed.rank() == int(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)  # as one waits for a GPU that waits for the dead process
"""


LEAVING = """
import time
from utils import distributed
distributed.BEAT = 1e-5  # so that the thread is nearly always inside the store
distributed.init_processes()
time.sleep(0.2)
"""


def places(number: int, count: int) -> dict[str, str]:
    """The environment of process `number` of `count`, with a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"RANK": str(number), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def test_a_process_ends_well_while_its_watch_speaks_to_the_store():
    """Without an end of the watch before Python's own, half of these are aborted."""
    processes = [
        subprocess.Popen([sys.executable, "-c", LEAVING], cwd=ROOT, env=os.environ | places(0, 1)) for _ in range(4)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_takes_the_others_along_with_a_message(dying):
    together = places(0, 2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEFT_BEHIND, str(dying)],
            cwd=ROOT,
            env=os.environ | together | {"RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    printed = [process.communicate(timeout=50) for process in processes]
    assert processes[dying].returncode == -signal.SIGKILL
    assert processes[1 - dying].returncode == 1
    assert printed[1 - dying][0] == "together\n"
    assert f"process {1 - dying}: process {dying} of this run is gone, see its own message" in printed[1 - dying][1]
