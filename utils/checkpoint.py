"""Checkpoints: dictionaries of tensors and plain values, written atomically and read without executing anything.

A training leaves three in its folder: `ckpt_last.pth`, from which it can be resumed, and the networks of its best
epochs, `ckpt.pth` by mIoU and `ckpt_hit.pth` by Hit.
"""

import io
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from utils.distributed import is_main
from utils.engine import Training
from utils.errors import ResumeError, UserError, reason, shown
from utils.files import atomic_write
from utils.memory import lacks_memory

LAST = "ckpt_last.pth"
BEST = {"ckpt.pth": "mIoU", "ckpt_hit.pth": "Hit"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # those of 8 bits have no `isfinite`

# What other trainings store beside their network: their flags and best metrics. Nothing here reads them.
HARMLESS = ["argparse.Namespace", "types.SimpleNamespace", "datetime.datetime", "datetime.timedelta"]
HARMLESS += ["numpy.dtype", "numpy.ndarray"]
HARMLESS += [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
HARMLESS += [f"pathlib.{name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")]


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` under `path`, atomically."""
    with atomic_write(path) as file:
        torch.save(content, file)


def find_checkpoint(folder: str | Path, name: str) -> Path:
    """The checkpoint `name` in `folder`, as published, or `name` itself where only that is a file."""
    inside = Path(folder) / name
    return Path(name) if Path(name).is_file() and not inside.is_file() else inside


class _Inert:
    """In the place of an object that is neither tensor nor plain value: keeps its state, and runs nothing."""

    state: Any = None

    def __init__(self, *parts: Any):
        """`parts`: what the object was to be made from."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of a TorchScript module and of those in it, by the names that its `state_dict` gives them."""
        inside, self.state = self.state, None  # once: a hostile file's could contain itself
        for name, value in inside.items() if isinstance(inside, dict) else ():
            if isinstance(value, _Inert):
                yield from value.tensors(f"{prefix}{name}.")
            elif isinstance(value, torch.Tensor):
                yield prefix + name, value


def load_checkpoint(path: str | Path, hint: str) -> dict[str, Any]:
    """The dictionary in a checkpoint, its tensors on the CPU; UserError with `hint` where it cannot be read.

    A file of torch, of safetensors or of TorchScript (OpenAI's own), whose code is left out. What is `HARMLESS` is
    accepted without its value.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = _read(Path(path))
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} does not exist; {hint}") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error.strerror or error}); {hint}") from None
    except Exception as error:  # a damaged or hostile file can raise almost anything
        # torch's own message advises loading the file without any check; only the name is taken from it.
        imported = re.search(r"GLOBAL ([\w.]+)", str(error))
        if imported:
            problem = f"the checkpoint {path} tries to import {imported[1]}"
            raise UserError(f"{problem}; use a trusted file, saved from a state_dict()") from None
        other = "takes more memory than there is" if lacks_memory(error) else "holds more than tensors"
        raise UserError(f"the checkpoint {path} is damaged, or {other}; {hint}") from None
    if not isinstance(content, dict):
        raise UserError(f"the checkpoint {path} does not hold a dictionary; {hint}")
    return content


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    source, names = path, HARMLESS
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                source, modules = _without_code(archive, path.stat().st_size)
                names = HARMLESS + modules
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        content = torch.load(source, map_location="cpu", weights_only=True)
    return dict(content.tensors()) if isinstance(content, _Inert) else content


def _without_code(archive: zipfile.ZipFile, size: int) -> tuple[io.BytesIO, list[str]]:
    """A TorchScript archive of `size` bytes as `torch.save` would have written it, and the names of its classes."""
    wanted = re.compile(r".*/(data(\.pkl|/\d+)|version|byteorder)")
    data = [entry for entry in archive.infolist() if wanted.fullmatch(entry.filename)]
    if sum(entry.file_size for entry in data) > size:
        raise ValueError("it unpacks to more than it is")
    classes: list[tuple[bytes, bytes]] = []
    with zipfile.ZipFile(copy := io.BytesIO(), "w") as plain:
        for entry in data:
            content = archive.read(entry)
            plain.writestr(entry.filename, content)
            if entry.filename.endswith("/data.pkl"):
                classes = re.findall(rb"c(__torch__[\w.]*|torch\.jit\._pickle)\n(\w+)\n", content)
    copy.seek(0)
    return copy, [b".".join(name).decode() for name in classes]


def parameters(content: Mapping[str, Any], file: str | Path, hint: str) -> dict[str, Any]:
    """The parameters by name that a checkpoint's dictionary holds or is; UserError with `hint` where there are none."""
    state = next((content[key] for key in ("model", "state_dict") if key in content), content)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        state = {}
    if not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{file} does not hold a network; {hint}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def save_training(
    folder: str | Path, network: dict[str, Any], training: Training, settings: dict[str, Any], split: str | None
) -> None:
    """Save the network where its last epoch is the best so far on `split` (without a split: always); then `LAST`.

    network: what a checkpoint holds of the network. settings: those that a resumed training must share.
    """
    history = training.history
    for name, metric in BEST.items():
        # An epoch before a resumption may have been validated on another split.
        values = [line.get(f"{split}/{metric}" if split else "epoch", -1.0) for line in history]
        if values[-1] > max(values[:-1], default=-1.0):
            save_checkpoint(Path(folder) / name, network | {"epoch": len(history), "metrics": history[-1]})
    states = {name: part.state_dict() for name, part in training.parts().items()}
    save_checkpoint(Path(folder) / LAST, network | {"training": states, "history": history, "settings": settings})


def require_settings(last: Mapping[str, Any], settings: dict[str, Any], folder: str | Path) -> None:
    """UserError, naming the differences, where a training is to be resumed with other settings than it began with."""
    before = last.get("settings")
    if not isinstance(before, dict):
        raise ResumeError(f"{Path(folder) / LAST} does not hold a training to resume; train without --resume")
    changed = []
    for name, new in settings.items():
        old = before.get(name)
        if type(old) is not type(new) or old != new:  # types first: a tensor has no plain answer to `!=`
            changed.append(f"{name} was {shown(old)} and is {shown(new)}")
    if changed:
        problem = f"the training in {folder} was begun with other settings: {'; '.join(changed)}"
        raise UserError(f"{problem}; use the same flags, or another --output")


def restore(training: Training, last: Mapping[str, Any], folder: str | Path) -> None:
    """Bring a training, whose network is already that of the last checkpoint, to where this one was saved."""
    try:
        states = dict(last["training"])
        for name, part in training.parts().items():
            part.load_state_dict(states[name])
        history = list(last["history"])
        if not all(type(value) in (int, float) and isfinite(value) for line in history for value in line.values()):
            raise ValueError("its history is not one of numbers")
        training.history = history
    except Exception as error:  # a damaged or hostile file can raise almost anything
        problem = f"{type(error).__name__}: {reason(error)}"
        raise ResumeError(f"{Path(folder) / LAST} is damaged ({problem}); train without --resume") from None


def fill(network: nn.Module, state: Mapping[str, Any], file: str | Path, hint: str) -> None:
    """Load the tensors of a checkpoint into a network; UserError that names the first one that is missing or unfit.

    Those that the network does not have are left out, with a warning.
    """
    expected = network.state_dict()
    for name, own in sorted(expected.items()):
        stored = state.get(name)
        if stored is None:
            problem = f"lacks {name}"
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
    network.load_state_dict({name: state[name] for name in expected})
    more = [shown(name) for name in state if name not in expected]
    if more and is_main():
        names = ", ".join(more[:3]) + (", ..." if len(more) > 3 else "")
        print(f"warning: {file} has {len(more)} parameters that this network does not have: {names}", file=sys.stderr)
