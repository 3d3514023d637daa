"""From displacements to instances, and from walked scores to a mask (IRNet, CVPR 2019, section 5)."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

NEAR_CENTRE = 2.5  # pixels of the map; closer ones are the cores of instances


class Fragment(NamedTuple):
    """One 4-connected part of an instance."""

    instance: int
    score: float  # the largest score in it, 0..1; 0 where the fragment is small
    mask: np.ndarray  # bool (H, W)


def find_centroids(displacement: torch.Tensor, iterations: int = 300) -> torch.Tensor:
    """Where every pixel arrives that follows the displacement again and again.

    displacement: float32 (2, h, w), y and x. Returns int64 (2, h, w), coordinates inside the map.
    """
    _, height, width = displacement.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([y.flatten(), x.flatten()]).float().to(displacement.device)  # (2, N)
    end = position.new_tensor([[height - 1], [width - 1]])
    moving = torch.arange(height * width, device=displacement.device)
    for _ in range(iterations):
        before = position[:, moving]
        # Positions in float32, the step in float64, as published: rough fields depend on the last bit.
        after = (before + _interpolate(displacement, before)).float()
        after = torch.minimum(after.clamp_(min=0), end)
        position[:, moving] = after
        moving = moving[(after != before).any(0)]  # who stands still does so for good
        if not len(moving):
            break
    return position.round().long().view(2, height, width)


def _interpolate(field: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The field, (2, h, w), bilinearly at float32 positions (2, n); float64 (2, n)."""
    width = field.shape[2]
    low, high = position.floor().long(), position.ceil().long()
    part_y, part_x = (position.double() - low).unbind()
    flat = field.flatten(1)
    return (
        flat[:, high[0] * width + high[1]] * part_y * part_x
        + flat[:, high[0] * width + low[1]] * part_y * (1 - part_x)
        + flat[:, low[0] * width + high[1]] * (1 - part_y) * part_x
        + flat[:, low[0] * width + low[1]] * (1 - part_y) * (1 - part_x)
    )


def cluster(displacement: torch.Tensor, centroids: torch.Tensor) -> np.ndarray:
    """Every pixel's instance, int64 (h, w), numbered from 0: the core that its centroid lies in (none is one, too)."""
    cores, _ = ndimage.label((displacement.norm(dim=0) < NEAR_CENTRE).cpu().numpy())
    at_centroid = cores[tuple(centroids.cpu().numpy())]
    return np.unique(at_centroid, return_inverse=True)[1].reshape(at_centroid.shape)


def instance_seeds(response: torch.Tensor, instances: torch.Tensor) -> torch.Tensor:
    """One map an instance: the response where it is, 0 elsewhere; only instances with any response.

    response: float (h, w), at least 0. instances: int64 (h, w). Returns float (K, h, w).
    """
    numbers = instances[response > 0].unique()
    return response * (instances == numbers[:, None, None])


def upsample_scores(walked: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """walked: float (K, h, w) at stride 4. Returns float32 (K, H, W), divided by the maximum over everything.

    All 0 where nothing is positive, which the published code turns into a mask of the whole photo.
    """
    height, width = size
    if not len(walked):
        return torch.zeros(0, height, width, device=walked.device)
    scores = F.interpolate(walked.float()[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    scores = scores[:, :height, :width]
    largest = scores.max()
    return scores / largest if largest > 0 else torch.zeros_like(scores)


def strongest(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where every instance is foreground and stronger than the others (the first of equals).

    scores: float32 (K, H, W), 0..1. Returns bool (K, H, W); its union is where any score exceeds the threshold.
    """
    if not len(scores):
        return scores > threshold
    best, instance = scores.max(dim=0)
    numbers = torch.arange(len(scores), device=scores.device)[:, None, None]
    return (instance == numbers) & (best > threshold)


def fragments(scores: np.ndarray, masks: np.ndarray, smallest: float) -> list[Fragment]:
    """The connected parts of every instance, in scan order within it.

    scores: float32 (K, H, W), 0..1. masks: bool (K, H, W). Parts of fewer than `smallest` pixels get the score 0.
    """
    found = []
    for instance, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        parts, count = ndimage.label(mask)
        for number in range(1, count + 1):
            part = parts == number
            best = float(score[part].max()) if part.sum() >= smallest else 0.0
            found.append(Fragment(instance, best, part))
    return found
