"""Networks, from a description or from a checkpoint, which holds its own description."""

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
from utils.checkpoint import fill, load_checkpoint, parameters
from utils.errors import UserError, shown
from utils.options import LONGEST_QUERY, SHORTEST_QUERY, SMALLEST_SIZE

HINT = "train it, or fetch a published one: bash scripts/download_weights.sh"
NETWORK_FLAGS = {"backbone": "backbone", "hidden_dim": "hidden_dim", "prompt_weight": "attn_multi"}
INPUT_FLAGS = {"input_size": "size", "query_length": "max_query_len"}  # which may differ from the checkpoint's
TOY_BACKBONES, TOY_SCORER, SCORER = ("toy", "toy-RN"), "toy-RNS", "ViT-B/32"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from and trained with, stored in every checkpoint. UserError for impossible values."""

    backbone: str = "clip-RN50"  # NAME, or NAME=FILE with the weights to start from
    hidden_dim: int = 1024  # stage 1's projections
    prompt_weight: float = 0.1  # stage 1's bilateral prompt
    input_size: int = 320  # pixels, of the square that photos are resized to
    query_length: int = 20  # tokens; stage 2 attends over the padding too

    def __post_init__(self) -> None:
        check_clip_name(self.backbone)
        for flag, value, low, high in (
            ("--hidden_dim", self.hidden_dim, 1, 4096),  # half a gigabyte of weights: more is not from this project
            ("--size", self.input_size, SMALLEST_SIZE, 4096),
            ("--max_query_len", self.query_length, SHORTEST_QUERY, LONGEST_QUERY),
        ):
            if type(value) is not int or not low <= value <= high:
                raise UserError(f"{flag} {shown(value)} is not a whole number from {low} to {high}")
        if not math.isfinite(self.prompt_weight):
            raise UserError(f"--attn_multi {self.prompt_weight} is not a finite number")

    @classmethod
    def of_flags(cls, args: argparse.Namespace) -> "Architecture":
        """What the flags say, with the published values as defaults."""
        flags = {name: getattr(args, flag) for name, flag in (NETWORK_FLAGS | INPUT_FLAGS).items()}
        return cls(**{name: value for name, value in flags.items() if value is not None})

    def require_flags(self, args: argparse.Namespace, file: str | Path) -> None:
        """UserError where a network flag contradicts this, the architecture of the checkpoint `file`."""
        for name, flag in NETWORK_FLAGS.items():
            given, own = getattr(args, flag), getattr(self, name)
            same = given in (None, own) or (name == "backbone" and check_clip_name(given) == check_clip_name(own))
            if not same:
                raise UserError(f"{file} was trained with --{flag} {own}, not {given}; leave this flag out")


Network = ResponseNetwork | SegmentationNetwork  # with its `architecture`, and `suggested_absent_below` or None


def build_network(stage: int, architecture: Architecture, pretrained: bool) -> Network:
    """A network of stage 1 or 2; with `pretrained` its backbone has CLIP's weights, else random ones."""
    backbone = build_clip(architecture.backbone, pretrained)
    if stage == 1:
        network = ResponseNetwork(backbone, architecture.hidden_dim, architecture.prompt_weight)
    else:
        network = SegmentationNetwork(backbone)
    network.architecture, network.suggested_absent_below = architecture, None
    return network.to(memory_format=torch.channels_last)  # convolutions are faster so


def build_scorer(network: Network, name: str | None = None, amp: torch.dtype | None = None) -> Scorer:
    """The scorer `name`, by default ViT-B/32, or the toy scorer for a network with the toy backbone."""
    backbone = network.architecture.backbone.partition("=")[0]
    return Scorer(build_clip(name or (TOY_SCORER if backbone in TOY_BACKBONES else SCORER)), amp)


def network_content(network: Network) -> dict[str, Any]:
    """What a checkpoint holds of a network."""
    # The file of the initial weights no longer matters.
    description = asdict(network.architecture) | {"backbone": network.architecture.backbone.partition("=")[0]}
    return {"model": network.state_dict(), "architecture": description}


def load_network(
    file: str | Path,
    hint: str = HINT,
    fallback: Architecture | None = None,
    stage: int | None = None,
    content: dict[str, Any] | None = None,
) -> Network:
    """The network of a checkpoint, ours or a published one, in evaluation mode on the CPU.

    A published checkpoint does not say what it was built from: then `fallback` does. content: what the file holds, if
    it was read before. Raises UserError where the file is not such a checkpoint, or is of another stage than `stage`.
    """
    content = load_checkpoint(file, hint) if content is None else content
    state = {our_name(name): value for name, value in parameters(content, file, hint).items()}
    found = stage_of(state, str(file))
    if stage not in (None, found):
        raise UserError(f"{file} is a checkpoint of stage {found}, not of stage {stage}; {hint}")
    architecture = fallback or Architecture()
    if content.get("architecture") is not None:
        try:
            architecture = Architecture(**content["architecture"])
        except UserError as error:
            raise UserError(f"{file} describes an impossible network: {error}") from None
        except (TypeError, AttributeError, ValueError, OverflowError):  # `isfinite` of what is not a plain number
            raise UserError(f"{file} describes its network in an unknown way; train it again") from None
    network = build_network(found, architecture, pretrained=False)
    fill(network, state, file, f"is it a checkpoint with --backbone {architecture.backbone}?")
    metrics = content.get("metrics")
    suggested = metrics.get("absent_below") if isinstance(metrics, dict) else None
    if isinstance(suggested, float) and math.isfinite(suggested):
        network.suggested_absent_below = suggested
    return network.eval()


def absence_limit(network: Network, flag: float | str | None) -> float:
    """The score below which a mask is made empty, from --absent_below; UserError where the network suggests none."""
    if flag != "suggested":
        return -math.inf if flag is None else flag
    if network.suggested_absent_below is None:
        raise UserError("the checkpoint suggests no --absent_below, only our training of stage 1 does; give a number")
    return network.suggested_absent_below
