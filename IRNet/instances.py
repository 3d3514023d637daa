"""From displacements to instances, and from walked scores to a mask (IRNet, CVPR 2019, section 5)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from scipy import ndimage

ASKED_EVERY = 16  # steps; a GPU waits for the answer whether any pixel still moves
NEAR_CENTRE = 2.5  # pixels of the map; closer ones are the cores of instances


def find_centroids(displacement: torch.Tensor, iterations: int = 300) -> torch.Tensor:
    """Where each pixel ends when it follows the displacement again and again.

    displacement: float32 (2, h, w), y and x. Returns int64 (2, h, w), coordinates inside the map.
    """
    _, height, width = displacement.shape
    grid = [torch.arange(side, device=displacement.device) for side in (width, height)]
    x, y = torch.meshgrid(*grid, indexing="xy")
    position = torch.stack([x.flatten(), y.flatten()], dim=1).float()  # (N, 2)
    start, end = position[0].clone(), position[-1].clone()
    # `grid_sample` has pixel i of n at (2 i + 1) / n - 1.
    scale = 2 / (end.double() + 1)
    field, offset = displacement.flip(0)[None].double(), scale / 2 - 1
    moving, after = torch.arange(len(position), device=displacement.device), position
    for iteration in range(1, iterations + 1):
        before = after
        where = torch.addcmul(offset, before, scale)[None, None]
        step = F.grid_sample(field, where, padding_mode="border", align_corners=False)[0, :, 0].t()
        # Positions in float32 and steps in float64, as published: on rough fields the last bit matters.
        after = (before + step).float().clamp_(start, end)
        if iteration % ASKED_EVERY == 0:
            position[moving] = after
            still_moving = (after != before).any(dim=1).nonzero()[:, 0]  # a pixel that stands still stays there
            moving, after = moving[still_moving], after[still_moving]
            if not len(moving):
                break
    position[moving] = after
    return position.flip(1).t().round().long().view(2, height, width)


def cluster(displacement: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Each pixel's instance, int64 (h, w), numbered from 0: the core that its centroid lies in, or "outside any"."""
    cores, _ = ndimage.label((displacement.norm(dim=0) < NEAR_CENTRE).cpu().numpy())
    at_centroid = torch.from_numpy(cores).to(centroids.device)[tuple(centroids)]
    return at_centroid.unique(return_inverse=True)[1]


def instance_seeds(response: torch.Tensor, instances: torch.Tensor) -> torch.Tensor:
    """One map per instance that has any response: the response inside the instance, 0 elsewhere.

    response: float (h, w), at least 0. instances: int64 (h, w). Returns float (K, h, w).
    """
    numbers = instances[response > 0].unique()
    return response * (instances == numbers[:, None, None])


def upsample_scores(walked: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """walked: float (K, h, w) at stride 4. Returns float32 (K, H, W), divided by their common maximum.

    All 0 if nothing is positive; the published code makes a mask of the whole photo then.
    """
    scores = F.interpolate(walked.float()[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    scores = scores[:, : size[0], : size[1]]
    largest = scores.max()
    return scores / largest if largest > 0 else torch.zeros_like(scores)


def strongest(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where each instance is foreground and the strongest one (the first of equals).

    scores: float32 (K, H, W), 0..1. Returns bool (K, H, W); their union is where any score exceeds the threshold.
    """
    best, instance = scores.max(dim=0)
    numbers = torch.arange(len(scores), device=scores.device)[:, None, None]
    return (instance == numbers) & (best > threshold)


def part_at_peak(mask: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The 4-connected part of a mask in which the response is largest: a sentence names one thing.

    mask: bool (H, W). response: float32 (H, W), at least 0. Returns bool (H, W), empty for an empty mask.
    """
    parts, _ = ndimage.label(mask)
    return mask & (parts == parts.flat[np.where(mask, response, -1).argmax()])


def connected_parts(scores: np.ndarray, masks: np.ndarray, smallest: float) -> list[dict[str, Any]]:
    """The 4-connected parts of every instance in scan order, with COCO's compressed run lengths as `segmentation`.

    scores: float32 (K, H, W), 0..1. masks: bool (K, H, W). A part's `score` is the largest in it, or 0 if the part has
    fewer than `smallest` pixels; its `instance` is one of 0..K - 1.
    """
    found = []
    for instance, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        parts, count = ndimage.label(mask)
        for number in range(1, count + 1):
            part = parts == number
            best = round(float(score[part].max()), 6) if part.sum() >= smallest else 0.0
            run_lengths = coco_mask.encode(np.asfortranarray(part.astype(np.uint8)))
            segmentation = {"size": run_lengths["size"], "counts": run_lengths["counts"].decode()}
            found.append({"segmentation": segmentation, "score": best, "instance": instance})
    return found
