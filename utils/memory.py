"""Memory: whether what is freed goes back to the system (the GNU C library alone), and which errors say it is full.

A system clears every page that it hands out, which took up to a third of the time where large tensors come and go.
"""

import ctypes
from contextlib import suppress

# M_MMAP_MAX: no allocation is a mapping of its own; M_TRIM_THRESHOLD: the heap never shrinks by itself; M_TOP_PAD:
# it grows by half a gigabyte of addresses, which take no memory before they are used.
KEEP = {-4: 0, -1: 2**31 - 1, -2: 1 << 29}


def keep_freed_memory() -> None:
    """From now on, keep what a tensor leaves for the next one; processes that are forked do so too."""
    with suppress(AttributeError):
        for parameter, value in KEEP.items():
            ctypes.CDLL(None).mallopt(parameter, value)


def return_freed_memory() -> None:
    """Give back now what is free: where the next tensors have other sizes, they would not fit into its pieces."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, or that of a loader's worker, says that memory is full: the machine's or a GPU's."""
    # Of PyTorch's errors only the GPU's has a class of its own, whose import would take seconds.
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return full or "can't allocate memory" in str(error)
