"""What a training tells: a line a message, a JSON line an epoch, TensorBoard scalars and pictures by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from utils.distributed import is_main
from utils.errors import UserError, reason
from utils.files import replacing


def say(message: str) -> None:
    """Print a line, on the main process only."""
    if is_main():
        print(message, flush=True)


class TrainingLog:
    """`<output>/log.jsonl`, one object an epoch, and TensorBoard events where a folder is given."""

    def __init__(self, output: str | Path, board_folder: str | None):
        self.file = Path(output) / "log.jsonl"
        self.board = None
        if board_folder and is_main():
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            try:
                self.board = SummaryWriter(board_folder)
            except OSError as error:
                problem = error.strerror or reason(error)
                raise UserError(f"cannot write to {board_folder}: {problem}; choose another --board_folder") from None

    def epoch(self, history: list[dict[str, Any]], step: int) -> None:
        """Write all epochs so far; the file is written anew, so an epoch stands in it once after any interruption."""
        if not is_main():
            return
        with replacing(self.file) as file:
            file.write("".join(json.dumps(line) + "\n" for line in history).encode())
        self.scalars({name: value for name, value in history[-1].items() if isinstance(value, float)}, step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def settings(self, values: dict[str, Any]) -> None:
        """The hyper-parameters, as a table of TensorBoard's text page."""
        if self.board:
            rows = "".join(f"| {name} | {value} |\n" for name, value in values.items())
            self.board.add_text("settings", f"| flag | value |\n|---|---|\n{rows}")

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """A picture, uint8 (H, W, 3), on TensorBoard's page of images."""
        if self.board:
            self.board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        if self.board:
            self.board.close()


def figures_table(rows: dict[str, dict[str, float]]) -> str:
    """Figures in percent as text: a line a row, a column a figure."""
    columns = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    width = max(map(len, [*rows, "figures, %"]))
    lines = [f"{'figures, %':<{width}}" + "".join(f"{column:>10}" for column in columns)]
    for row, figures in rows.items():
        cells = (f"{figures[column]:10.2f}" if column in figures else f"{'-':>10}" for column in columns)
        lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)
