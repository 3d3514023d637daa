"""What a training leaves in its `--output`: the last checkpoint, the best ones, and the picture of its examples."""

from pathlib import Path
from typing import Any

import numpy as np

from utils.checkpoint import BEST_HIT, BEST_MIOU, LAST, load_checkpoint, save_checkpoint
from utils.distributed import is_main
from utils.engine import Training
from utils.errors import UserError, reason
from utils.pictures import save_png

EXAMPLES = "examples.png"
BEST = {BEST_MIOU: "mIoU", BEST_HIT: "Hit"}


class TrainingFolder:
    """Written by the main process alone; read by all.

    `settings`: those that a resumed training must share with the one it goes on from.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]):
        self.settings = settings
        self.last, self.best, self.examples = (Path(folder) / name for name in (LAST, BEST_MIOU, EXAMPLES))

    def read_last(self) -> dict[str, Any]:
        """The checkpoint to go on from; UserError where it is not there or was made with other settings."""
        content = load_checkpoint(self.last, "train without --resume first")
        before = content.get("settings")
        if not isinstance(content.get("training"), dict) or not isinstance(before, dict):
            raise UserError(f"{self.last} holds no training to go on with; train without --resume")
        changed = [
            f"{name} was {before.get(name)} and is {value}"
            for name, value in self.settings.items()
            if before.get(name) != value
        ]
        if changed:
            raise UserError(
                f"{self.last} was trained otherwise: {'; '.join(changed)}; use the same flags or another --output"
            )
        return content

    def restore(self, training: Training, content: dict[str, Any]) -> None:
        """Bring a new training to where the last checkpoint's was; UserError where that is damaged."""
        try:
            training.load_state_dict(content["training"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # each part raises its own
            problem = f"{type(error).__name__}: {reason(error)}"
            raise UserError(f"the training in {self.last} is damaged ({problem}); train without --resume") from None

    def save_last(self, network: dict[str, Any], training: Training) -> None:
        """Keep the whole training; `network`: what a checkpoint holds of it."""
        if is_main():
            save_checkpoint(self.last, network | {"training": training.state_dict(), "settings": self.settings})

    def save_best(self, network: dict[str, Any], history: list[dict[str, Any]], split: str | None) -> None:
        """Keep the network where its last epoch is the best so far by a figure of `split`; without a split always."""
        for name, figure in BEST.items():
            # An epoch before a resumption may have been validated on another split.
            column = [line.get(f"{split}/{figure}" if split else "epoch", -1.0) for line in history]
            if column[-1] > max(column[:-1], default=-1.0) and is_main():
                content = network | {"epoch": len(history), "figures": history[-1]}
                save_checkpoint(self.last.with_name(name), content)

    def save_examples(self, sheet: np.ndarray) -> None:
        if is_main():
            save_png(self.examples, sheet)
