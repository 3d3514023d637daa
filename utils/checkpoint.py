"""Checkpoints: dictionaries of tensors and plain values, written atomically and read without executing anything.

A training leaves three in its folder: `ckpt_last.pth`, from which it can be resumed, and the networks of its best
epochs, `ckpt.pth` by mIoU and `ckpt_hit.pth` by Hit.
"""

import re
import warnings
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import ResumeError, UserError, reason, shown
from utils.files import atomic_write

LAST = "ckpt_last.pth"
BEST = {"ckpt.pth": "mIoU", "ckpt_hit.pth": "Hit"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # those of 8 bits have no `isfinite`


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` under `path`, atomically."""
    with atomic_write(path) as file:
        torch.save(content, file)


def find_checkpoint(folder: str | Path, name: str) -> Path:
    """The checkpoint `name` in `folder`, as published, or `name` itself where only that is a file."""
    inside = Path(folder) / name
    return Path(name) if Path(name).is_file() and not inside.is_file() else inside


def load_checkpoint(path: str | Path, hint: str) -> dict[str, Any]:
    """The dictionary in a checkpoint, its tensors on the CPU; UserError with `hint` where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} does not exist; {hint}") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error.strerror or error}); {hint}") from None
    except Exception as error:  # a damaged or hostile file can raise almost anything
        # torch's own message advises loading the file without any check; only the name is taken from it.
        imported = re.search(r"GLOBAL ([\w.]+)", str(error))
        if imported:
            raise UserError(f"the checkpoint {path} tries to import {imported[1]}; use a trusted file") from None
        raise UserError(f"the checkpoint {path} is damaged, or holds more than tensors; {hint}") from None
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} does not hold a dictionary; {hint}")
    return content


def save_training(
    folder: str | Path,
    network: dict[str, Any],
    parts: Mapping[str, Any],
    history: list[dict[str, Any]],
    settings: dict[str, Any],
    split: str | None,
) -> None:
    """Save the network where its last epoch is the best so far on `split` (without a split: always); then `LAST`.

    network: what a checkpoint holds of the network. parts: optimiser, schedule, ... by name, each with a `state_dict`.
    history: one line per finished epoch. settings: those that a resumed training must share.
    """
    for name, metric in BEST.items():
        # An epoch before a resumption may have been validated on another split.
        values = [line.get(f"{split}/{metric}" if split else "epoch", -1.0) for line in history]
        if values[-1] > max(values[:-1], default=-1.0):
            save_checkpoint(Path(folder) / name, network | {"epoch": len(history), "metrics": history[-1]})
    training = {name: part.state_dict() for name, part in parts.items()}
    content = network | {"training": training, "history": history, "settings": settings}
    save_checkpoint(Path(folder) / LAST, content)


def require_settings(last: Mapping[str, Any], settings: dict[str, Any], folder: str | Path) -> None:
    """UserError, naming the differences, where a training is to be resumed with other settings than it began with."""
    before = last.get("settings")
    if not isinstance(before, dict):
        raise UserError(f"{Path(folder) / LAST} does not hold a training to resume; train without --resume")
    changed = []
    for name, new in settings.items():
        old = before.get(name)
        if type(old) is not type(new) or old != new:  # types first: a tensor has no plain answer to `!=`
            changed.append(f"{name} was {shown(old)} and is {shown(new)}")
    if changed:
        problem = f"the training in {folder} was begun with other settings: {'; '.join(changed)}"
        raise UserError(f"{problem}; use the same flags, or another --output")


def restore(last: Mapping[str, Any] | None, parts: Mapping[str, Any], folder: str | Path) -> list[dict[str, Any]]:
    """Give optimiser, schedule, ... their state in the last checkpoint, if any; returns the finished epochs' lines."""
    if last is None:
        return []
    try:
        states = dict(last["training"])
        for name, part in parts.items():
            part.load_state_dict(states[name])
        history = list(last["history"])
        if not all(type(value) in (int, float) and isfinite(value) for line in history for value in line.values()):
            raise ValueError("its history is not one of numbers")
        return history
    except Exception as error:  # a damaged or hostile file can raise almost anything
        problem = f"{type(error).__name__}: {reason(error)}"
        raise ResumeError(f"{Path(folder) / LAST} is damaged ({problem}); train without --resume") from None


def fill(network: nn.Module, state: Mapping[str, Any], file: str | Path, hint: str) -> None:
    """Load the tensors of a checkpoint into a network; UserError that names the first one that does not fit."""
    expected = network.state_dict()
    for name in sorted(expected.keys() | state.keys(), key=str):
        own, stored = expected.get(name), state.get(name)
        if stored is None:
            problem = f"lacks {name}"
        elif own is None:
            problem = f"has {shown(name)}, which this network does not have"
        elif not isinstance(stored, torch.Tensor) or (
            (stored.layout, stored.device.type, stored.is_nested) != (torch.strided, "cpu", False)
        ):
            problem = f"has {name} as something other than a plain tensor"
        elif own.shape != stored.shape:
            problem = f"has {name} of shape {tuple(stored.shape)} instead of {tuple(own.shape)}"
        elif own.is_floating_point() and stored.dtype not in FLOATS:
            problem = f"has {name} in {stored.dtype} instead of {own.dtype}"
        elif not stored.isfinite().all():
            problem = f"has values in {name} that are not finite"
        else:
            continue
        raise UserError(f"{file} {problem}; {hint}")
    network.load_state_dict(state)
