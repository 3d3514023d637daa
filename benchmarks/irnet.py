"""The rows of IRNet's parts."""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks import naive_irnet
from benchmarks.timing import Pair, Setting
from IRNet.crf import DenseCRF
from IRNet.instances import cluster, find_centroids, strongest
from IRNet.make_ins_seg import PhotoStructure, pseudo_scores
from IRNet.walk import random_walk


def crf_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """A photo of smooth parts and noise, and the two label maps of a response map of two blobs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / height
    response = response_map(height, width)
    photo = 120 + 90 * np.sin(5 * (y + x))[..., None] * [1, 0.5, -1] + 60 * (response.numpy() > 0.5)[..., None]
    photo = (photo + rng.normal(0, 8, photo.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(photo), torch.stack([response > 0.3, response > 0.1], dim=-1)


def response_map(height: int, width: int) -> torch.Tensor:
    y, x = np.mgrid[:height, :width] / height
    blobs = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.03) for a, b in ((0.4, 0.4), (0.6, 0.9)))
    return torch.from_numpy(blobs / blobs.max()).float()


def mask_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Response of height x width, edges and the displacements of two instances at a quarter of that."""
    small = (height // 4, width // 4)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: small[0], : small[1]].astype(np.float32)
    centre = np.where(x < small[1] / 2, small[1] / 4, 3 * small[1] / 4)
    displacement = np.stack([small[0] / 2 - y, centre - x]) * 0.3 + rng.normal(0, 0.05, (2, *small))
    edge = np.exp(-np.abs(x - small[1] / 2)) + rng.uniform(0, 0.2, small)
    edge = torch.from_numpy(edge.clip(0, 1)).float()
    return response_map(height, width), edge, torch.from_numpy(displacement).float()


def walk_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """One instance's scores and the edges of a map of height x width."""
    response, edge, _ = mask_inputs(4 * height, 4 * width)
    return response[None, ::4, ::4], edge


def our_crf(photo: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return DenseCRF(photo)(labels)


def our_pseudo_mask(response: torch.Tensor, edge: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    instances = torch.from_numpy(cluster(displacement, find_centroids(displacement)))
    scores = pseudo_scores(response, PhotoStructure(edge, instances, tuple(response.shape)), 10, 8)
    return strongest(scores, 0.25).any(dim=0)


def crf(setting: Setting) -> Pair:
    return _pair(our_crf, naive_irnet.crf_per_label, crf_inputs(*setting.photo_size), setting, repeats=3)


def walk(setting: Setting) -> Pair:
    inputs = walk_inputs(*setting.walk_size)
    return _pair(random_walk, naive_irnet.dense_walk, inputs, setting, repeats=1, ours_per_repeat=5)


def pseudo_mask(setting: Setting) -> Pair:
    inputs = mask_inputs(*setting.masked_photo_size)
    return _pair(our_pseudo_mask, naive_irnet.pseudo_mask, inputs, setting, repeats=2, ours_per_repeat=3)


def _pair(
    ours: Callable[..., torch.Tensor],
    straightforward: Callable[..., torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
    setting: Setting,
    **runs: int,
) -> Pair:
    inputs = tuple(tensor.to(setting.device) for tensor in inputs)
    return Pair(lambda: [[ours(*inputs)]], lambda: [[straightforward(*inputs)]], **runs)


ROWS: dict[str, Callable[[Setting], Pair]] = {"crf": crf, "walk": walk, "pseudo_mask": pseudo_mask}
