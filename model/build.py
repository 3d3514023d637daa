"""Networks from a description or from a checkpoint, which says itself what it is."""

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clip import build_clip, check_clip_name
from model.checkpoint_names import our_name, stage_of
from model.scorer import Scorer
from model.stage1 import ResponseNetwork
from model.stage2 import SegmentationNetwork
from utils.checkpoint import fill, load_checkpoint
from utils.errors import UserError, shown

MAX_HIDDEN_DIM = 4096  # half a gigabyte of weights; a checkpoint that says more is no network of this project
CURE = "train it, or put a published one there (weights/README.md)"  # for a checkpoint that cannot be had
TOY_BACKBONES, TOY_SCORER, SCORER = ("toy", "toy-RN"), "toy-ViT", "ViT-B/32"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from; kept in every checkpoint."""

    backbone: str = "clip-RN50"  # NAME, or NAME=FILE with the weights to start from
    hidden_dim: int = 1024  # stage 1's projections
    prompt_weight: float = 0.1  # stage 1's bilateral prompt

    def __post_init__(self) -> None:
        check_clip_name(self.backbone)
        if type(self.hidden_dim) is not int or self.hidden_dim not in range(1, MAX_HIDDEN_DIM + 1):
            raise UserError(f"--hidden_dim {shown(self.hidden_dim)} is not a whole number from 1 to {MAX_HIDDEN_DIM}")
        if not math.isfinite(self.prompt_weight):
            raise UserError(f"--attn_multi {self.prompt_weight} is not a finite number")

    @classmethod
    def of_flags(cls, args: argparse.Namespace) -> "Architecture":
        """What the flags of the network group say."""
        return cls(args.backbone or cls.backbone, args.hidden_dim, args.attn_multi)


Network = ResponseNetwork | SegmentationNetwork


def build_network(stage: int, architecture: Architecture, pretrained: bool) -> Network:
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


def network_content(network: Network, architecture: Architecture) -> dict[str, Any]:
    """What a checkpoint holds of a network."""
    name = architecture.backbone.partition("=")[0]  # the file of the initial weights does not matter any more
    return {"model": network.state_dict(), "architecture": asdict(architecture) | {"backbone": name}}


def load_network(
    file: str | Path, cure: str = CURE, fallback: Architecture | None = None, stage: int | None = None
) -> tuple[Network, Architecture]:
    """The network of a checkpoint, ours or a published one, in evaluation mode on the CPU, and its description.

    A published checkpoint does not say what it was built from: then `fallback` does. Raises UserError where the file is
    no such checkpoint, or of another stage than `stage`.
    """
    content = load_checkpoint(file, cure)
    state = content.get("model", content)
    if not isinstance(state, dict) or not all(_is_parameter(*item) for item in state.items()):
        raise UserError(f"{file} holds no network; {cure}")
    state = {our_name(name.removeprefix("module.")): value for name, value in state.items()}
    found = stage_of(state, str(file))
    if stage not in (None, found):
        raise UserError(f"{file} is a checkpoint of stage {found}, stage {stage} was asked for; {cure}")
    architecture = _described(content.get("architecture"), file) or fallback or Architecture()
    network = build_network(found, architecture, pretrained=False)
    fill(network, state, file, f"is it a checkpoint with --backbone {architecture.backbone}?")
    return network.eval(), architecture


def _is_parameter(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def _described(description: Any, file: str | Path) -> Architecture | None:
    if description is None:
        return None
    try:
        return Architecture(**description)
    except UserError as error:
        raise UserError(f"{file} describes a network that cannot be: {error}") from None
    except (TypeError, AttributeError):
        raise UserError(f"{file} describes its network in a way this version does not know; train it again") from None
