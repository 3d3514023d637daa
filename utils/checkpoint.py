"""Checkpoints: dictionaries of tensors and plain values, whole or not there, read without running anything."""

from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import replacing

BEST_MIOU = "ckpt.pth"
BEST_HIT = "ckpt_hit.pth"
LAST = "ckpt_last.pth"


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` under `path`; what was there before stays until the new file is whole."""
    with replacing(path) as file:
        torch.save(content, file)


def load_checkpoint(path: str | Path, cure: str) -> dict[str, Any]:
    """The dictionary in a checkpoint, its tensors on the CPU; UserError with `cure` where it cannot be had."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} is not there; {cure}") from None
    except Exception as error:  # a damaged or hostile file can raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the checkpoint {path} is damaged or holds more than tensors ({reason}); {cure}") from None
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} holds no dictionary; {cure}")
    return content
