"""Two processes on CPUs: gradients, the same metrics and files as one process, and what torchrun does to them."""

import subprocess
import sys

import torch
from torch import nn

from tests.conftest import ROOT, data_words, train_words
from tests.processes import run_processes

IMPORTS = f"import os, signal, sys, time\nsys.path.insert(0, {str(ROOT)!r})\n"
GRADIENTS = """
import torch
from torch import nn
from utils.distributed import accumulating, data_parallel, barrier, init_processes, rank


def main():
    device = init_processes()
    torch.manual_seed(0)
    network = data_parallel(nn.Linear(3, 1).double(), device)
    images = torch.arange(24.0, dtype=torch.float64).reshape(8, 3).square()
    for part in range(2):  # two batches of two per process
        with accumulating(network, part == 0):
            (network(images[4 * rank() + 2 * part :][:2]).square().mean() / 2).backward()
    torch.save([p.grad for p in network.parameters()], f"{sys.argv[1]}/{rank()}.pth")
    barrier()


main()
"""
DIES = """
from utils.distributed import barrier, init_processes, rank

init_processes()
barrier()
print("barrier passed", flush=True)
if rank() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


def test_gradients_of_two_processes_are_those_of_one_with_the_same_batches(tmp_path):
    (tmp_path / "gradients.py").write_text(IMPORTS + GRADIENTS)
    run_processes(tmp_path / "gradients.py", tmp_path)
    torch.manual_seed(0)
    network = nn.Linear(3, 1).double()
    images = torch.arange(24.0, dtype=torch.float64).reshape(8, 3).square()
    sum(network(images[i : i + 2]).square().mean() / 4 for i in range(0, 8, 2)).backward()
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pth", weights_only=True)
        for gradient, parameter in zip(found, network.parameters(), strict=True):
            assert torch.allclose(gradient, parameter.grad, rtol=1e-12)


def test_evaluation_and_export_of_two_processes_are_those_of_one(trained, world, tmp_path, script, one_thread):
    """Three photos: one process has two of them."""

    def words(name):
        folder = tmp_path / name
        evaluated = [*data_words(world), "--test_split", "test", "--output", trained[0], "--prms"]
        exported = ["--cam_save_dir", folder / "cam", "--name_save_dir", folder, "--json", folder / "metrics.json"]
        return ["validate.py", *evaluated, *exported]

    assert script(*words("one"))[0] == 0
    run_processes(*words("two"))
    one, two = (
        {f.name: f.read_bytes() for f in (tmp_path / name).rglob("*") if f.is_file() and f.suffix != ".png"}
        for name in ("one", "two")
    )
    assert len(one) > 5
    assert one == two


def test_one_that_dies_ends_the_other(tmp_path):
    (tmp_path / "dies.py").write_text(IMPORTS + DIES)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", tmp_path / "dies.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=100)
    assert done.returncode != 0 and b"barrier passed" in done.stdout


def test_two_processes_train(world, tmp_path):
    printed = run_processes("train_stage1.py", *train_words(world, tmp_path, "--epoch", "1"))
    assert "batch 4 x 2 processes" in printed
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
