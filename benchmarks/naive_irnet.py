"""IRNet's parts in the straightforward way, as the published code computes them."""

import numpy as np
import torch
import torch.nn.functional as F

from IRNet.crf import (
    BILATERAL_WEIGHT,
    GAUSSIAN_SXY,
    GAUSSIAN_WEIGHT,
    SymmetricKernel,
    bilateral_features,
    positions,
)
from IRNet.instances import cluster, instance_seeds
from IRNet.pairs import path_to, search_offsets

RADIUS = 5


def crf_per_label(photo: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Every label map with lattices of its own and the marginals of both labels. Arguments as `IRNet.crf.DenseCRF`."""
    return torch.stack([_two_label_crf(photo, labels[..., column]) for column in range(labels.shape[-1])], dim=-1)


def _two_label_crf(photo: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    height, width, _ = photo.shape
    kernels = (
        (GAUSSIAN_WEIGHT, SymmetricKernel(positions(height, width, photo.device) / GAUSSIAN_SXY)),
        (BILATERAL_WEIGHT, SymmetricKernel(bilateral_features(photo))),
    )
    sure, other = -np.log(0.7), -np.log(0.3)
    flat = label.flatten()
    unary = torch.stack([torch.where(flat, other, sure), torch.where(flat, sure, other)], dim=-1).float()
    marginals = torch.softmax(-unary, dim=-1)  # (N, 2)
    for _ in range(10):
        energy = -unary
        for weight, kernel in kernels:
            energy = energy + weight * kernel(marginals)
        marginals = torch.softmax(energy, dim=-1)
    return marginals[:, 1].view(label.shape)


def dense_walk(scores: torch.Tensor, edge: torch.Tensor, beta: float = 10, exp_times: int = 8) -> torch.Tensor:
    """Squaring the dense N x N transition matrix. Arguments as `IRNet.walk.random_walk`; float32."""
    height, width = edge.shape
    transition = torch.eye(height * width, device=edge.device)
    padded = F.pad(edge, (RADIUS, RADIUS, 0, RADIUS), value=1)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=edge.device) for n in edge.shape), indexing="ij")
    for offset in search_offsets(RADIUS):
        values = [padded[rows + y, columns + RADIUS + x] for y, x in path_to(offset)]
        affinity = 1 - torch.stack(values).amax(dim=0)
        inside = (rows + offset[0] < height) & (columns + offset[1] >= 0) & (columns + offset[1] < width)
        source = (rows * width + columns)[inside]
        target = source + offset[0] * width + offset[1]
        transition[source, target] = transition[target, source] = affinity[inside]
    transition = transition**beta
    transition = transition / transition.sum(dim=0, keepdim=True)
    for _ in range(exp_times):
        transition = transition @ transition
    return ((scores * (1 - edge)).flatten(1) @ transition).view_as(scores)


def centroids_step_by_step(displacement: np.ndarray, iterations: int = 300) -> np.ndarray:
    """All pixels, always all steps. displacement: float32 (2, h, w). Returns int64 (2, h, w)."""
    _, height, width = displacement.shape
    y, x = (grid.astype(np.float32) for grid in np.mgrid[:height, :width])
    for _ in range(iterations):
        low_y, high_y, low_x, high_x = (f(v).astype(np.int32) for v in (y, x) for f in (np.floor, np.ceil))
        part_y, part_x = y - low_y, x - low_x
        moves = [
            field[high_y, high_x] * part_y * part_x
            + field[high_y, low_x] * part_y * (1 - part_x)
            + field[low_y, high_x] * (1 - part_y) * part_x
            + field[low_y, low_x] * (1 - part_y) * (1 - part_x)
            for field in displacement
        ]
        y = np.clip((y + moves[0]).astype(np.float32), 0, height - 1)
        x = np.clip((x + moves[1]).astype(np.float32), 0, width - 1)
    return np.round(np.stack([y, x])).astype(np.int64)


def pseudo_mask(response: torch.Tensor, edge: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """A photo's mask with the dense walk, bool (H, W). response: (H, W). edge: (h, w). displacement: (2, h, w)."""
    centroids = torch.from_numpy(centroids_step_by_step(displacement.cpu().numpy()))
    instances = torch.from_numpy(cluster(displacement, centroids))
    small = F.interpolate(response[None, None], size=edge.shape, mode="bilinear", align_corners=True)[0, 0]
    scores = dense_walk(instance_seeds(small, instances), edge)
    scores = F.interpolate(scores[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    scores = scores[:, : response.shape[0], : response.shape[1]]
    return (scores / scores.max()).amax(dim=0) > 0.25
