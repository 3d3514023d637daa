"""Freed memory is kept for the next tensors, and given back when a pass asks for it."""

import subprocess
import sys

from tests.conftest import ROOT

CODE = """
import torch
from pathlib import Path
from utils.memory import return_freed_memory
{first}
def megabytes():
    return next(int(l.split()[1]) // 1000 for l in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in l)
torch.ones(8)
before = megabytes()
torch.ones(300, 1000, 1000, dtype=torch.uint8)
kept = megabytes() - before
return_freed_memory()
print(kept, megabytes() - before)
"""
KEEP = "from utils.distributed import init_processes; init_processes()"


def test_a_script_keeps_freed_memory_until_it_returns_it():
    for first, expected in (("", False), (KEEP, True)):
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(first=first)], cwd=ROOT, capture_output=True, text=True
        )
        kept, left = map(int, done.stdout.split())
        assert (kept > 280) is expected and left < 50, done
