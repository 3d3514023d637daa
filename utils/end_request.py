"""Signals that ask a training to end: noted, agreed on by all processes, obeyed where the training is saved."""

import signal
from types import TracebackType
from typing import NoReturn

import torch

from utils.distributed import any_process, wait_for_all
from utils.errors import InterruptionError

KINDS = (signal.SIGTERM, signal.SIGINT)


class EndRequest:
    """SIGTERM and SIGINT are noted while the block lasts, instead of ending the process."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __enter__(self) -> "EndRequest":
        self.before = [signal.signal(kind, lambda number, _: self.received.append(number)) for kind in KINDS]
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for kind, handler in zip(KINDS, self.before, strict=True):
            signal.signal(kind, handler)

    def made(self, device: torch.device) -> bool:
        """Whether any process has been asked to end. All of them must ask, with their `device`, at the same place."""
        return any_process(bool(self.received), device)

    def obey(self) -> NoReturn:
        """End the training, which is saved: raises InterruptionError on every process."""
        wait_for_all()
        raise InterruptionError(self.received[0] if self.received else signal.SIGTERM)
