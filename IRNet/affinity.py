"""Pairs of nearby positions and the straight paths between them (IRNet, CVPR 2019, section 4.1)."""

from collections.abc import Sequence
from functools import lru_cache

import torch

Offset = tuple[int, int]  # (dy, dx)


@lru_cache
def search_offsets(radius: int) -> tuple[Offset, ...]:
    """Every offset (dy, dx) shorter than `radius`; of two opposite ones that with dy > 0, or with dy = 0 and dx > 0."""
    offsets = [(y, x) for y in range(radius) for x in range(1 - radius, radius) if x * x + y * y < radius * radius]
    return tuple(offset for offset in offsets if offset > (0, 0))


@lru_cache
def path_to(offset: Offset) -> tuple[Offset, ...]:
    """All points less than 1 from the line between (0, 0) and `offset` (dy >= 0), both ends too, far end first."""
    dy, dx = offset
    box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
    points = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]
    return tuple(sorted(points, key=lambda point: -abs(point[0]) - abs(point[1])))


def shifted(maps: torch.Tensor, offset: Offset, radius: int) -> torch.Tensor:
    """The map's value at `offset` from every source, as a view. maps: (..., H, W). Returns (..., h, w).

    Sources are rows 0 .. H - r and columns r - 1 .. W - r: from there no offset shorter than r leaves the map.
    """
    height, width = max(0, maps.shape[-2] - radius + 1), max(0, maps.shape[-1] - 2 * (radius - 1))
    top, left = offset[0], radius - 1 + offset[1]
    return maps[..., top : top + height, left : left + width]


def pair_affinity(edge: torch.Tensor, radius: int, offsets: Sequence[Offset]) -> torch.Tensor:
    """1 - the largest edge on the path of every pair. edge: float (..., H, W), 0..1. Returns (..., K, h, w).

    K offsets, each shorter than `radius`; h x w sources, see `shifted`.
    """
    return 1 - _PathMaximum.apply(edge, radius, offsets)


class _PathMaximum(torch.autograd.Function):
    """The maximum along every path. Keeps one byte per pair for the gradient; autograd would keep all paths."""

    @staticmethod
    def forward(ctx, edge: torch.Tensor, radius: int, offsets: Sequence[Offset]) -> torch.Tensor:
        ctx.radius, ctx.offsets, ctx.size = radius, offsets, edge.shape
        size = (*edge.shape[:-2], len(offsets), *shifted(edge, (0, 0), radius).shape[-2:])
        maxima = edge.new_empty(size)
        winners = torch.empty(size, dtype=torch.uint8, device=edge.device)
        for k, offset in enumerate(offsets):
            views = torch.stack([shifted(edge, point, radius) for point in path_to(offset)])
            maxima[..., k, :, :], winners[..., k, :, :] = views.max(dim=0)
        ctx.save_for_backward(winners)
        return maxima

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (winners,) = ctx.saved_tensors
        result = gradient.new_zeros(ctx.size)
        longest = max(len(path_to(offset)) for offset in ctx.offsets)
        places = torch.arange(longest, dtype=torch.uint8, device=gradient.device).view(-1, *[1] * len(ctx.size))
        for k, offset in enumerate(ctx.offsets):
            path = path_to(offset)
            shares = gradient[..., k, :, :] * (winners[..., k, :, :] == places[: len(path)])  # (P, ..., h, w)
            for point, share in zip(path, shares, strict=True):
                shifted(result, point, ctx.radius).add_(share)
        return result, None, None
