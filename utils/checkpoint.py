"""Checkpoints: dictionaries of tensors and plain values, whole or not there, read without running anything."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import UserError, shown
from utils.files import replacing
from utils.memory import bounded_by

BEST_MIOU = "ckpt.pth"
BEST_HIT = "ckpt_hit.pth"
LAST = "ckpt_last.pth"


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` under `path`; what was there before stays until the new file is whole."""
    with replacing(path) as file:
        torch.save(content, file)


def find_checkpoint(folder: str | Path, name: str) -> Path:
    """As published, `name` is looked up in `folder`, where it then should be; else it is a path of its own."""
    inside = Path(folder) / name
    return Path(name) if Path(name).is_file() and not inside.is_file() else inside


def load_checkpoint(path: str | Path, cure: str) -> dict[str, Any]:
    """The dictionary in a checkpoint, its tensors on the CPU; UserError with `cure` where it cannot be had."""
    try:
        with bounded_by(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} is not there; {cure}") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error.strerror or error}); {cure}") from None
    except Exception as error:  # a damaged or hostile file can raise almost anything
        # torch's own words go on to advise loading the file without any check; only the name is taken from them.
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        problem = f"wants to import {wanted[1]}" if wanted else "is damaged or holds more than tensors"
        raise UserError(f"the checkpoint {path} {problem}; {cure}") from None
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} holds no dictionary; {cure}")
    return content


def fill(network: nn.Module, state: Mapping[str, Any], file: str | Path, cure: str) -> None:
    """Give a network the tensors of a checkpoint; UserError that names the first that does not fit."""
    own = network.state_dict()
    for name in sorted(own.keys() | state.keys(), key=str):
        problem = _problem(name, own.get(name), state.get(name))
        if problem:
            raise UserError(f"{file} {problem}; {cure}")
    network.load_state_dict(state)


def _problem(name: Any, own: torch.Tensor | None, stored: Any) -> str | None:
    if stored is None:
        return f"lacks {name}"
    if own is None:
        return f"has {shown(name)}, which this network has not"
    if not isinstance(stored, torch.Tensor) or stored.layout is not torch.strided or stored.device.type != "cpu":
        return f"has {name} as something else than a plain tensor"
    if own.shape != stored.shape:
        return f"has {name} of shape {tuple(stored.shape)} instead of {tuple(own.shape)}"
    if own.is_floating_point() and not stored.is_floating_point():
        return f"has {name} in {stored.dtype} instead of {own.dtype}"
    if not stored.isfinite().all():
        return f"has values in {name} that are not finite"
    return None
