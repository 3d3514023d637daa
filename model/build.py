"""Networks from a description or from a checkpoint, which says itself what it is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clip import build_clip, check_clip_name
from model.checkpoint_names import our_name, stage_of
from model.scorer import Scorer
from model.stage1 import ResponseNetwork
from model.stage2 import SegmentationNetwork
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

TOY_BACKBONES, TOY_SCORER, SCORER = ("toy", "toy-RN"), "toy-ViT", "ViT-B/32"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from; kept in every checkpoint."""

    backbone: str = "clip-RN50"  # NAME, or NAME=FILE with the weights to start from
    hidden_dim: int = 1024  # stage 1's projections
    prompt_weight: float = 0.1  # stage 1's bilateral prompt

    def __post_init__(self) -> None:
        check_clip_name(self.backbone)


def build_network(stage: int, architecture: Architecture, pretrained: bool) -> nn.Module:
    """A network of stage 1 or 2; with `pretrained` its backbone has CLIP's weights, else it is random."""
    backbone = build_clip(architecture.backbone, pretrained)
    if stage == 1:
        network = ResponseNetwork(backbone, architecture.hidden_dim, architecture.prompt_weight)
    else:
        network = SegmentationNetwork(backbone)
    return network.to(memory_format=torch.channels_last)  # convolutions are faster so


def build_scorer(backbone: str, amp: torch.dtype | None = None) -> Scorer:
    """The scorer that goes with a backbone: the toy world's own, else ViT-B/32."""
    return Scorer(build_clip(TOY_SCORER if backbone.partition("=")[0] in TOY_BACKBONES else SCORER), amp)


def network_content(network: nn.Module, architecture: Architecture) -> dict[str, Any]:
    """What a checkpoint holds of a network."""
    name = architecture.backbone.partition("=")[0]  # the file of the initial weights does not matter any more
    return {"model": network.state_dict(), "architecture": asdict(architecture) | {"backbone": name}}


def load_network(
    file: str | Path, cure: str, fallback: Architecture | None = None, stage: int | None = None
) -> tuple[nn.Module, Architecture]:
    """The network of a checkpoint, ours or a published one, in evaluation mode on the CPU, and its description.

    A published checkpoint does not say what it was built from: then `fallback` does. Raises UserError where the file is
    no such checkpoint, or of another stage than `stage`.
    """
    content = load_checkpoint(file, cure)
    state = content.get("model", content)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{file} holds no network; {cure}")
    state = {our_name(name.removeprefix("module.")): value for name, value in state.items()}
    found = stage_of(state, str(file))
    if stage not in (None, found):
        raise UserError(f"{file} is a checkpoint of stage {found}, stage {stage} was asked for; {cure}")
    architecture = _described(content.get("architecture"), file) or fallback or Architecture()
    network = build_network(found, architecture, pretrained=False)
    _fill(network, state, file, architecture)
    return network.eval(), architecture


def _described(description: Any, file: str | Path) -> Architecture | None:
    if description is None:
        return None
    try:
        return Architecture(**description)
    except TypeError:
        raise UserError(f"{file} describes its network in a way this version does not know; train it again") from None


def _fill(network: nn.Module, state: dict[str, torch.Tensor], file: str | Path, architecture: Architecture) -> None:
    own = network.state_dict()
    for name in sorted(own.keys() | state.keys()):
        problem = (
            f"lacks {name}"
            if name not in state
            else f"has {name}, which this network has not"
            if name not in own
            else f"has {name} of shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            if own[name].shape != state[name].shape
            else None
        )
        if problem:
            raise UserError(f"{file} {problem}; is it a checkpoint with --backbone {architecture.backbone}?")
    network.load_state_dict(state)
