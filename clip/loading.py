"""A CLIP model by name, with random weights, its published ones, or those of a file. open_clip does the work."""

import logging
import warnings
from pathlib import Path

import open_clip
import torch

from utils.checkpoint import fill, load_checkpoint, parameters
from utils.errors import UserError, reason

TOY = Path(__file__).parent.parent / "toy"
TOY_WEIGHTS = TOY / "clip.pt"
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # constants that OpenAI's files hold
open_clip.add_model_config(TOY)  # each .json file there describes an architecture


def build_clip(name: str, pretrained: bool = True) -> open_clip.CLIP:
    """A CLIP model in float32 on the CPU, in evaluation mode.

    `name` is one of OpenAI's models (`RN50`, `RN101`, `RN50x4`, `ViT-B/32`, ...; a leading `clip-` is ignored) or of
    the toy world's (`toy-RN`, or `toy` for short, and `toy-RNS`). `NAME=FILE` takes the weights from FILE: OpenAI's own
    or a state dict saved by torch or safetensors, for a toy model one written by `python -m toy.make_clip`. Without
    `pretrained` the weights are random, and nothing is read or downloaded.

    Raises UserError if the name is unknown or the weights cannot be loaded.
    """
    architecture, file = check_clip_name(name), name.partition("=")[2]
    if not pretrained:
        return _create(architecture)
    if architecture.startswith("toy-"):
        return _create_toy(architecture, Path(file or TOY_WEIGHTS))
    if file:
        model, hint = _create(architecture), f"give the weights of CLIP {architecture}, OpenAI's or a state dict"
        state = parameters(load_checkpoint(file, hint), file, hint)
        fill(model, {name: value for name, value in state.items() if not name.endswith(NO_WEIGHTS)}, file, hint)
        return model
    try:
        return _create(architecture, "openai")
    except Exception as error:  # huggingface_hub, torch and open_clip each raise their own
        hint = f"check the network and the free disk space, or name a file: clip-{architecture}=/path/to/file"
        problem = f"cannot load the weights of CLIP {architecture} from huggingface.co or its cache; {hint}"
        raise UserError(problem) from error


def check_clip_name(name: str) -> str:
    """The architecture that a name for `build_clip` stands for, such as `ViT-B-32`; UserError if there is none."""
    architecture = name.partition("=")[0].removeprefix("clip-").replace("/", "-")
    published = [n for n in open_clip.list_pretrained_models_by_tag("openai") if not n.endswith("-quickgelu")]
    known = [*published, *sorted(file.stem for file in TOY.glob("*.json"))]
    if architecture not in [*known, "toy"]:
        raise UserError(f"there is no CLIP named '{name}'; known are {', '.join(known)}")
    return "toy-RN" if architecture == "toy" else architecture


def _create(architecture: str, source: str | None = None) -> open_clip.CLIP:
    """`source`: one of open_clip's tags, whose file it reads with `weights_only`; None: random weights."""
    logging.disable(logging.ERROR)  # open_clip warns of random weights and logs each error that it then raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that it then refuses
            # OpenAI trained with QuickGELU, which open_clip's plain names do not imply.
            model = open_clip.create_model(architecture, source, force_quick_gelu=True).eval()
    finally:
        logging.disable(logging.NOTSET)
    for module in model.modules():
        if hasattr(module, "batch_first"):  # with it, training projects each position in a product of its own
            module.batch_first = False
    return model


def _create_toy(architecture: str, file: Path) -> open_clip.CLIP:
    """A toy model from the file in which `toy.make_clip` stored it in half precision.

    Of the token embedding only the rows of the words of the toy world are stored; other words carry no meaning. The
    backbone's attention pool is not stored, because nothing evaluates it.
    """
    model, hint = _create(architecture), "make it with: bash scripts/make_toy_clip.sh"
    stored = load_checkpoint(file, hint)
    try:
        state = {key: value.float() for key, value in stored[architecture].items()}
        words = torch.zeros_like(model.token_embedding.weight)
        words[state.pop("token_rows").long()] = state["token_embedding.weight"]
    except (KeyError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} is not a toy CLIP ({reason(error)}); {hint}") from None
    pool = {key: torch.zeros_like(value) for key, value in model.state_dict().items() if "attnpool" in key}
    fill(model, pool | state | {"token_embedding.weight": words}, file, hint)
    return model
