"""The published implementation's figures, and networks filled with the weights that they were made with."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import nn

from clip import build_clip
from model.checkpoint_names import our_name
from tests.reference.golden_weights import golden_state_dict, golden_tensor

REFERENCE = Path(__file__).parent / "reference"


def figures(name: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / f"{name}.npz") as stored:
        return dict(stored)


def published_names(stage: int) -> dict[str, tuple[str, list[int]]]:
    """name -> (dtype, shape) of every tensor in a published checkpoint."""
    return json.loads((REFERENCE / f"published_stage{stage}_names.json").read_text())


def load_golden(network: nn.Module, stage: int) -> nn.Module:
    """The network in evaluation mode with golden weights, put in through the published names."""
    weights = {}
    for name, (dtype, shape) in published_names(stage).items():
        values = golden_tensor(name, shape) if dtype == "float32" else np.zeros(shape, dtype)
        weights[our_name(name)] = torch.from_numpy(np.array(values)).reshape(shape)
    network.load_state_dict(weights)
    return network.eval()


def golden_clip(name: str) -> open_clip.CLIP:
    model = build_clip(name, pretrained=False)
    model.load_state_dict(golden_state_dict(model))
    return model


def difference(ours: torch.Tensor | np.ndarray, stored: dict[str, np.ndarray], key: str) -> float:
    """max |a - b| / max |b| of a tensor against the figure `key`, which may hold every n-th entry of it only."""
    array = ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else ours
    if key in stored:
        expected = stored[key]
    else:
        assert list(array.shape) == stored[f"{key}.shape"].tolist()
        array = array[tuple(slice(None, None, step) for step in stored[f"{key}.strides"])]
        expected = stored[f"{key}.slice"]
    assert array.shape == expected.shape
    return float(np.abs(array - expected).max() / max(np.abs(expected).max(), 1e-12))


def norms_by_our_names(stored: dict[str, np.ndarray], step: int) -> dict[str, float]:
    """The published norms of all gradients before a step; -1 where there is none."""
    return dict(zip(map(our_name, stored["param_names"]), stored["grad_norms"][step].tolist(), strict=True))


def gradient_difference(gradients: dict[str, torch.Tensor], stored: dict[str, np.ndarray], published: str) -> float:
    """`difference` of the first 256 entries of a gradient, of which some rows only may be stored."""
    gradient = gradients[our_name(published)]
    if f"grad.{published}.rows" in stored:
        gradient = gradient[torch.from_numpy(stored[f"grad.{published}.rows"])]
    return difference(gradient.flatten()[:256], stored, f"grad.{published}.head")


def load_by_published_names(module: nn.Module, prefix: str, ours: str) -> nn.Module:
    """Golden weights of an attention module that was alone, so its published names lack the network's prefix."""
    names = [name for name in published_names(1 if prefix == "attn_fusion." else 2) if name.startswith(prefix)]
    own = {name: our_name(name).removeprefix(ours) for name in names}
    shapes = {name: module.state_dict()[own[name]].shape for name in names}
    weights = {name: np.array(golden_tensor(name.removeprefix(prefix), shapes[name])) for name in names}
    module.load_state_dict({own[name]: torch.from_numpy(weights[name]) for name in names})
    return module
