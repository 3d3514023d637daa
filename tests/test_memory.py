"""Freed memory is kept for the next tensors, and given back when a pass asks for it."""

from tests.processes import Started

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


def test_a_script_keeps_freed_memory_until_it_returns_it(tmp_path):
    for first, expected in (("", False), (KEEP, True)):
        (tmp_path / "script.py").write_text(CODE.format(first=first))
        printed, errors = Started([tmp_path / "script.py"]).communicate(timeout=100)
        kept, left = map(int, printed.split())
        assert (kept > 280) is expected and left < 50, errors
