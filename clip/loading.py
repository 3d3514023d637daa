"""A CLIP model by name, with or without its published weights, or with the weights of a file."""

import copy
import logging
import urllib.request
from pathlib import Path

import open_clip
import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip.factory import load_checkpoint as open_clip_load

from utils.checkpoint import fill, load_checkpoint, save_checkpoint
from utils.errors import UserError, reason
from utils.memory import bounded_by

_WEIGHTS_FILE = "open_clip_model.safetensors"  # in open_clip's repositories of OpenAI's weights
_POOL = "visual.attnpool."
TOY_FILE = Path(__file__).with_name("toy_clip.pt")

# Small encoders for the toy world, trained by scripts/make_toy_clip.sh. open_clip classes like the real ones.
_TOY_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3}
TOY_ARCHITECTURES = {
    "toy-RN": {
        "embed_dim": 128,
        "vision_cfg": {"layers": [1, 1, 2, 2], "width": 16, "head_width": 64, "image_size": 320},
        "text_cfg": _TOY_TEXT,
    },
    "toy-ViT": {
        "embed_dim": 128,
        "vision_cfg": {"layers": 3, "width": 96, "head_width": 32, "patch_size": 8, "image_size": 96},
        "text_cfg": _TOY_TEXT,
    },
}


def build_clip(name: str, pretrained: bool = True) -> open_clip.CLIP:
    """A CLIP model in float32 on the CPU, in evaluation mode.

    `name` is one of OpenAI's (`RN50`, `RN101`, `RN50x4`, `ViT-B/32`, ...; a leading `clip-` is ignored), a toy's
    (`toy-RN`, for short `toy`, and `toy-ViT`), or `NAME=FILE`: that architecture with the weights of FILE. Without
    `pretrained` the weights are random and nothing is read or fetched. Raises UserError for an unknown name and where
    weights are not to be had.
    """
    architecture = check_clip_name(name)
    name, _, file = name.partition("=")
    if architecture in TOY_ARCHITECTURES:
        model = open_clip.CLIP(**TOY_ARCHITECTURES[architecture], quick_gelu=True)
        if pretrained:
            load_toy_weights(model, architecture, Path(file) if file else TOY_FILE)
        return model.eval()
    if not pretrained:
        return _without_weights(architecture).eval()
    if file:
        return _with_weights_of(architecture, Path(file))
    return _with_published_weights(architecture, name)


def check_clip_name(name: str) -> str:
    """The architecture behind a name that `build_clip` takes; UserError where there is none."""
    plain = name.partition("=")[0].removeprefix("clip-").replace("/", "-")
    plain = "toy-RN" if plain == "toy" else plain
    published = [n.removesuffix("-quickgelu") for n in open_clip.list_pretrained_models_by_tag("openai")]
    known = [*dict.fromkeys(published), *TOY_ARCHITECTURES]
    if plain not in known:
        raise UserError(f"there is no CLIP named '{name}'; known are {', '.join(known)}")
    return plain if plain in TOY_ARCHITECTURES else f"{plain}-quickgelu"  # OpenAI trained with QuickGELU


def _without_weights(architecture: str) -> open_clip.CLIP:
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random, which is what was asked for
    try:
        return open_clip.create_model(architecture, load_weights=False)
    finally:
        logging.disable(logging.NOTSET)


def _with_weights_of(architecture: str, file: Path) -> open_clip.CLIP:
    model = _without_weights(architecture)
    try:
        with bounded_by(file):
            open_clip_load(model, str(file), weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the CLIP weights {file} are not there; give an existing file") from None
    except Exception as error:  # torch, safetensors and open_clip each raise their own kinds for a damaged file
        raise UserError(
            f"{file} does not hold weights of {architecture} ({reason(error)}); "
            "a state dict (.pt, .safetensors) is needed"
        ) from None
    return model.eval()


def _with_published_weights(architecture: str, name: str) -> open_clip.CLIP:
    repository = open_clip.get_pretrained_cfg(architecture, "openai")["hf_hub"].strip("/")
    cached = try_to_load_from_cache(repository, _WEIGHTS_FILE)
    if isinstance(cached, str):
        return _with_weights_of(architecture, Path(cached))
    cure = f"connect to the network once, or name a file: {name}=/path/to/weights.safetensors"
    try:
        # One quick question first: without a network the download library repeats its own for most of a minute.
        request = urllib.request.Request(hf_hub_url(repository, _WEIGHTS_FILE), method="HEAD")
        urllib.request.urlopen(request, timeout=10).close()
        file = hf_hub_download(repository, _WEIGHTS_FILE)
    except (OSError, HfHubHTTPError) as error:
        raise UserError(f"the weights of CLIP {name} ({repository}) could not be fetched ({error}); {cure}") from None
    return _with_weights_of(architecture, Path(file))


def build_toy_for_training(name: str, rows: list[int]) -> open_clip.CLIP:
    """A toy model with fresh weights whose vocabulary is the token ids `rows` alone: token i stands for rows[i]."""
    architecture = copy.deepcopy(TOY_ARCHITECTURES[name])
    architecture["text_cfg"]["vocab_size"] = len(rows)
    return open_clip.CLIP(**architecture, quick_gelu=True)


def load_toy_weights(model: open_clip.CLIP, name: str, file: Path) -> None:
    """Fill a toy model from the file that scripts/make_toy_clip.sh wrote: half precision, known words' rows only."""
    cure = "make it with: bash scripts/make_toy_clip.sh"
    try:
        state = {key: value.float() for key, value in load_checkpoint(file, cure)[name].items()}
        rows = state.pop("token_rows").long()
        embedding = torch.zeros_like(model.token_embedding.weight)  # other words than the toy's carry no meaning
        embedding[rows] = state["token_embedding.weight"]
    except (KeyError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(f"{file} is no toy CLIP ({type(error).__name__}: {reason(error)}); {cure}") from None
    pool = {key: torch.zeros_like(value) for key, value in model.state_dict().items() if key.startswith(_POOL)}
    fill(model, pool | state | {"token_embedding.weight": embedding}, file, cure)


def save_toy_weights(models: dict[str, open_clip.CLIP], rows: list[int], file: Path) -> None:
    """Write models of `build_toy_for_training` so that `load_toy_weights` can read them.

    A residual network's attention pool, half of its parameters, is left out: nothing but this training evaluates it.
    """
    stored = {}
    for name, model in models.items():
        state = {key: value.half() for key, value in model.state_dict().items() if not key.startswith(_POOL)}
        stored[name] = state | {"token_rows": torch.tensor(rows, dtype=torch.int32)}
    save_checkpoint(file, stored)
