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
from utils.options import LONGEST_QUERY, SHORTEST_QUERY, SMALLEST_SIZE

MAX_HIDDEN_DIM = 4096  # half a gigabyte of weights; a checkpoint that says more is no network of this project
CURE = "train it, or put a published one there (weights/README.md)"  # for a checkpoint that cannot be had
MAX_SIZE = 4096  # pixels
NETWORK_FLAGS = {"backbone": "backbone", "hidden_dim": "hidden_dim", "prompt_weight": "attn_multi"}
TOY_BACKBONES, TOY_SCORER, SCORER = ("toy", "toy-RN"), "toy-ViT", "ViT-B/32"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from and trained with; kept in every checkpoint. Raises UserError for absurd values."""

    backbone: str = "clip-RN50"  # NAME, or NAME=FILE with the weights to start from
    hidden_dim: int = 1024  # stage 1's projections
    prompt_weight: float = 0.1  # stage 1's bilateral prompt
    input_size: int = 320  # pixels, of the square that photos are resized to
    query_length: int = 20  # tokens; stage 2 attends over the padding too

    def __post_init__(self) -> None:
        check_clip_name(self.backbone)
        _require_whole("--hidden_dim", self.hidden_dim, 1, MAX_HIDDEN_DIM)
        _require_whole("--size", self.input_size, SMALLEST_SIZE, MAX_SIZE)
        _require_whole("--max_query_len", self.query_length, SHORTEST_QUERY, LONGEST_QUERY)
        if not math.isfinite(self.prompt_weight):
            raise UserError(f"--attn_multi {self.prompt_weight} is not a finite number")

    @classmethod
    def of_flags(cls, args: argparse.Namespace) -> "Architecture":
        """What the flags say, with the published values where they say nothing."""
        said = {name: getattr(args, flag) for name, flag in NETWORK_FLAGS.items() if getattr(args, flag) is not None}
        return cls(**said, input_size=args.size, query_length=args.max_query_len)

    def require_flags(self, args: argparse.Namespace, file: str | Path) -> None:
        """UserError where a flag of the network group says otherwise than this, which is the checkpoint `file`'s."""
        for name, flag in NETWORK_FLAGS.items():
            said, own = getattr(args, flag), getattr(self, name)
            same = said is None or said == own
            if not same and not (name == "backbone" and check_clip_name(said) == check_clip_name(own)):
                raise UserError(f"{file} was trained with --{flag} {own}, not {said}; leave it out")


def _require_whole(flag: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{flag} {shown(value)} is not a whole number from {low} to {high}")


Network = ResponseNetwork | SegmentationNetwork  # with the `architecture` that it was built from


def build_network(stage: int, architecture: Architecture, pretrained: bool) -> Network:
    """A network of stage 1 or 2; with `pretrained` its backbone has CLIP's weights, else it is random."""
    backbone = build_clip(architecture.backbone, pretrained)
    if stage == 1:
        network = ResponseNetwork(backbone, architecture.hidden_dim, architecture.prompt_weight)
    else:
        network = SegmentationNetwork(backbone)
    network.architecture = architecture
    return network.to(memory_format=torch.channels_last)  # convolutions are faster so


def build_scorer(network: Network, name: str | None = None, amp: torch.dtype | None = None) -> Scorer:
    """The scorer `name`, by default that which goes with a network's backbone: the toy world's own, else ViT-B/32."""
    backbone = network.architecture.backbone.partition("=")[0]
    return Scorer(build_clip(name or (TOY_SCORER if backbone in TOY_BACKBONES else SCORER)), amp)


def network_content(network: Network) -> dict[str, Any]:
    """What a checkpoint holds of a network."""
    # The file of the initial weights does not matter any more.
    description = asdict(network.architecture) | {"backbone": network.architecture.backbone.partition("=")[0]}
    return {"model": network.state_dict(), "architecture": description}


def load_network(
    file: str | Path, cure: str = CURE, fallback: Architecture | None = None, stage: int | None = None
) -> Network:
    """The network of a checkpoint, ours or a published one, in evaluation mode on the CPU.

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
    return network.eval()


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
