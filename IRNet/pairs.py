"""Pairs of nearby positions and the straight path between them (IRNet, CVPR 2019, section 4.1)."""

from functools import lru_cache

import torch

Offset = tuple[int, int]  # (dy, dx)


@lru_cache
def search_offsets(radius: int) -> tuple[Offset, ...]:
    """Every offset (dy, dx) closer than `radius`, one of each pair of opposite ones: dy > 0, or dy = 0 and dx > 0."""
    offsets = [(0, x) for x in range(1, radius)]
    offsets += [(y, x) for y in range(1, radius) for x in range(1 - radius, radius) if x * x + y * y < radius * radius]
    return tuple(offsets)


@lru_cache
def path_to(offset: Offset) -> tuple[Offset, ...]:
    """The points less than one unit from the line between (0, 0) and `offset`, both ends included, far end first."""
    dy, dx = offset
    ys = range(min(0, dy), max(0, dy) + 1)
    xs = range(min(0, dx), max(0, dx) + 1)
    square = dy * dy + dx * dx
    points = [(y, x) for y in ys for x in xs if (dy * x - dx * y) ** 2 < square]
    return tuple(sorted(points, key=lambda point: -abs(point[0]) - abs(point[1])))


def source_size(height: int, width: int, radius: int) -> tuple[int, int]:
    """Height and width of the area of sources: rows 0 .. H - r, columns r - 1 .. W - r, so every offset lies inside."""
    return max(0, height - radius + 1), max(0, width - 2 * (radius - 1))


def shifted(maps: torch.Tensor, offset: Offset, radius: int) -> torch.Tensor:
    """What every source finds at `offset` from itself, as a view. maps: (..., H, W); result: (..., h, w)."""
    height, width = source_size(*maps.shape[-2:], radius)
    top, left = offset[0], radius - 1 + offset[1]
    return maps[..., top : top + height, left : left + width]


def pair_affinity(edge: torch.Tensor, radius: int) -> torch.Tensor:
    """1 - the largest edge on the path of every pair. edge: float (..., H, W), 0..1; result: (..., K, h, w).

    K offsets in the order of `search_offsets`; h x w sources, see `source_size`.
    """
    return 1 - _PathMaximum.apply(edge, radius)


class _PathMaximum(torch.autograd.Function):
    """The maximum along every path. Keeps one byte a pair for the gradient; autograd itself would keep the paths."""

    @staticmethod
    def forward(ctx, edge: torch.Tensor, radius: int) -> torch.Tensor:
        ctx.radius, ctx.size = radius, edge.shape
        size = (*edge.shape[:-2], len(search_offsets(radius)), *source_size(*edge.shape[-2:], radius))
        maxima = edge.new_empty(size)
        winners = torch.empty(size, dtype=torch.uint8, device=edge.device)
        for k, offset in enumerate(search_offsets(radius)):
            views = torch.stack([shifted(edge, point, radius) for point in path_to(offset)])
            maxima[..., k, :, :], winners[..., k, :, :] = views.max(dim=0)
        ctx.save_for_backward(winners)
        return maxima

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (winners,) = ctx.saved_tensors
        result = gradient.new_zeros(ctx.size)
        for k, offset in enumerate(search_offsets(ctx.radius)):
            for p, point in enumerate(path_to(offset)):
                part = gradient[..., k, :, :] * (winners[..., k, :, :] == p)
                shifted(result, point, ctx.radius).add_(part)
        return result, None
