"""IRNet's checkpoint: the backbone's name and the network's tensors; where training is unfinished, its state too."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from IRNet.network import EdgeDisplacement, build_network
from utils.errors import UserError
from utils.files import replacing

CURE = "make it with --train_irn_pass True"


def save_checkpoint(
    path: Path, backbone: str, network: EdgeDisplacement, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint, atomically. training: what else an unfinished training needs to go on."""
    with replacing(path) as file:
        torch.save({"backbone": backbone, "network": network.state_dict(), **(training or {})}, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; UserError where it is absent or damaged."""
    if not path.is_file():
        raise UserError(f"IRNet's checkpoint {path} is not there; {CURE}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError):
        content = None
    if not isinstance(content, dict) or not {"backbone", "network"} <= content.keys():
        raise UserError(f"{path} is not a whole checkpoint of IRNet; remove it and {CURE}")
    return content


def load_network(path: Path) -> EdgeDisplacement:
    """The trained network of a checkpoint, in evaluation mode, on the CPU; UserError where that cannot be had."""
    content = read_checkpoint(path)
    network = build_network(content["backbone"])
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit the network ({str(error).splitlines()[0]}); remove it and {CURE}"
        ) from None
    return network.eval()
