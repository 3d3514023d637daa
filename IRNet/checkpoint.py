"""IRNet's checkpoint: the backbone's name and the network's tensors; where training is unfinished, its state too."""

from pathlib import Path
from typing import Any

from IRNet.network import EdgeDisplacement, build_network
from utils.checkpoint import fill, load_checkpoint
from utils.checkpoint import save_checkpoint as save
from utils.errors import UserError

CURE = "make it with --train_irn_pass True"


def save_checkpoint(
    path: Path, backbone: str, network: EdgeDisplacement, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint, atomically. training: what else an unfinished training needs to go on."""
    save(path, {"backbone": backbone, "network": network.state_dict(), **(training or {})})


def read_checkpoint(path: Path, cure: str = CURE) -> dict[str, Any]:
    """The content of a checkpoint; UserError with `cure` where it is absent or damaged."""
    content = load_checkpoint(path, cure)
    if not {"backbone", "network"} <= content.keys() or not isinstance(content["network"], dict):
        raise UserError(f"{path} is no checkpoint of IRNet; remove it and {CURE}")
    return content


def load_network(path: Path) -> EdgeDisplacement:
    """The trained network of a checkpoint, in evaluation mode, on the CPU; UserError where that cannot be had."""
    content = read_checkpoint(path)
    network = build_network(content["backbone"])
    fill(network, content["network"], path, f"remove it and {CURE}")
    return network.eval()
