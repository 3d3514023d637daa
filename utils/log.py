"""What a run reports: lines of text, a JSON line per epoch, TensorBoard scalars and pictures by name."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from utils.distributed import is_main
from utils.errors import WriteError, as_unicode, reason
from utils.files import atomic_write


def log(message: str) -> None:
    """Print a line, on the main process only."""
    if is_main():
        print(message, flush=True)


class TrainingLog:
    """`<output>/log.jsonl`, one object per epoch, and TensorBoard events where a folder is given.

    `settings`: the flags, which TensorBoard shows as a table on its text page.
    """

    def __init__(self, output: str | Path, board_folder: str | None, settings: dict[str, Any]):
        self.file = Path(output) / "log.jsonl"
        self.board = None
        if board_folder and is_main():
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            threading.excepthook = _of_thread
            with _writing(board_folder):
                self.board = SummaryWriter(board_folder)
            rows = "".join(f"| {name} | {value} |\n" for name, value in settings.items())
            self.board.add_text("settings", as_unicode(f"| flag | value |\n|---|---|\n{rows}"))

    def epoch(self, history: list[dict[str, Any]], step: int) -> None:
        """Write all epochs so far, on the main process: each is in the file once, whatever was interrupted."""
        with atomic_write(self.file) as file:
            file.write("".join(json.dumps(line) + "\n" for line in history).encode())
        self.scalars({name: value for name, value in history[-1].items() if isinstance(value, float)}, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Show uint8 (H, W, 3) on TensorBoard's image page."""
        if self.board:
            with _writing(self.board.log_dir):
                self.board.add_image(name, picture, step, dataformats="HWC")

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.board:
            with _writing(self.board.log_dir):
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        if self.board:
            with _writing(self.board.log_dir):
                self.board.close()


def _of_thread(failure: threading.ExceptHookArgs) -> None:
    """Prints what ends a thread, but not that TensorBoard's could not write: see `_writing`."""
    of_tensorboard = type(failure.thread).__module__.startswith("tensorboard.")
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        threading.__excepthook__(failure)


@contextmanager
def _writing(board_folder: str) -> Iterator[None]:
    """TensorBoard writes in a thread, and the next call raises what ended it."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or reason(error)
        words = f"cannot write to {board_folder}: {problem}; choose another --board_folder, or make room"
        raise WriteError(words) from None


def metrics_table(rows: dict[str, dict[str, float]]) -> str:
    """Metrics in percent as text: a line per row, a column per metric."""
    if not rows:
        return "no metrics: nothing was evaluated"
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    width = max(map(len, [*rows, "metrics, %"]))
    lines = [f"{'metrics, %':<{width}}" + "".join(f"{column:>10}" for column in columns)]
    for row, metrics in rows.items():
        cells = (f"{metrics[column]:10.2f}" if column in metrics else f"{'-':>10}" for column in columns)
        lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)
