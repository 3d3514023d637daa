"""Response maps at their three sizes: a network's own, its input's, and the photo's."""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Responses(NamedTuple):
    """What a network answers to N sentences. `maps` follows from `scores` and S, see `full_maps`."""

    scores: torch.Tensor  # (N, 1, h, w), at the network's own resolution
    maps: torch.Tensor  # (N, 1, S, S), at its input's

    @property
    def peaks(self) -> torch.Tensor:
        """Each sentence's largest score (N,): low where nothing there fits it. A normalised map cannot say that."""
        return self.scores.amax(dim=(1, 2, 3))


def in_full_precision(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def upsample(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Features or scores (N, C, h, w) at another size, (N, C, H, W), as the networks do it: corners not aligned."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def full_maps(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stage 1's response maps (N, 1, S, S), at least 0, from its scores (N, 1, h, w)."""
    return upsample(scores, size).relu()


def enlarged(responses: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (n, 1, S, S) at a photo's size, float32 (n, H, W).

    Kept: this second upsampling aligns corners, the network's own does not.
    """
    return F.interpolate(responses.float(), size, mode="bilinear", align_corners=True)[:, 0]


def at_photo_size(responses: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (n, 1, S, S) at a photo's size, float32 (n, H, W), divided by their maximum.

    A map without a positive value is left as it is. (The published code divides by the negative maximum, which turns
    the whole photo into the mask.)
    """
    maps = enlarged(responses, size)
    maximum = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(maximum > 0, maximum + 1e-5, 1)
