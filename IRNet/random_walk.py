"""The random walk that spreads scores up to the edges (IRNet, CVPR 2019, section 5), in memory linear in the pixels.

T = A^beta with normalised columns; the result is x T^(2^exp_times). T is a 69-point stencil and similar to a symmetric
matrix with its spectrum in [-1, 1], so its power is a short Chebyshev series: for T^256 about 80 products, not 256.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from IRNet.affinity import pair_affinity, search_offsets
from IRNet.lattice import csr

RADIUS = 5
NEGLIGIBLE = 1e-6  # the sum of the terms left out of the series, relative to the largest score


def random_walk(scores: torch.Tensor, edge: torch.Tensor, beta: float = 10, exp_times: int = 8) -> torch.Tensor:
    """Spread `scores` for 2^exp_times steps.

    scores: float (K, h, w), at least 0, one map per instance. edge: float (h, w), 0..1. Returns float64 (K, h, w).
    """
    step, _ = transition(edge.double(), beta)
    coefficients = chebyshev_coefficients(2**exp_times)
    # As published, scores on an edge do not walk.
    previous = (scores.double() * (1 - edge.double())).flatten(1).t().contiguous()  # (n, K)
    current = step @ previous
    walked = coefficients[0] * previous + coefficients[1] * current
    for coefficient in coefficients[2:]:  # T_{j + 1} = 2 T T_j - T_{j - 1}
        previous, current = current, torch.addmm(previous, step, current, beta=-1, alpha=2)
        if coefficient:  # every other one is 0: an even power has even terms alone
            walked.add_(current, alpha=coefficient)
    return walked.t().reshape(scores.shape).clamp_(min=0)  # the series leaves about -1e-6 where the walk is 0


def transition(edge: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the walk, diag(A 1)^-1 A, sparse (n, n) over the n = h w pixels of `edge`; and A 1, (n,)."""
    reach = RADIUS - 1
    # Outside the map the edge is 1, so that a pair that leaves it has weight 0.
    padded = F.pad(edge, (reach, reach, 0, reach), value=1)
    affinity = pair_affinity(padded, RADIUS, search_offsets(RADIUS))  # (34, h, w)
    known = torch.cat([affinity.pow_(beta).flatten(), edge.new_zeros(1), edge.new_ones(1)])
    sources, starts, columns = _sparse_pattern(*edge.shape, edge.device)
    weights = known.index_select(0, sources).view(edge.numel(), -1)  # (n, 69)
    degree = weights.sum(dim=1)
    return csr(starts, columns, (weights / degree[:, None]).flatten(), (edge.numel(), edge.numel())), degree


@lru_cache(maxsize=4)  # few sizes are common
def _sparse_pattern(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Row by row, where the 69 entries of each of A's n rows come from, and where they stand.

    Returns indices of affinities (34, h, w) with a 0 and a 1 behind them, int64 (69 n,); for `csr` the rows' starts,
    int32 (n + 1,), and the columns, int32 (69 n,): any one for an entry that is 0 because it would leave the map.
    """
    y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(*map(torch.arange, (height, width)), indexing="ij"))
    dy, dx = torch.tensor(search_offsets(RADIUS)).unbind(1)  # (34,)
    pixel, shift, first = y * width + x, dy * width + dx, torch.arange(len(dy)) * len(y)
    nothing = torch.tensor(len(dy) * len(y))
    inside = (y >= dy) & (x >= dx) & (x - dx < width)  # where the pair begins whose other end is this pixel
    backward = torch.where(inside, first + pixel - shift, nothing)  # (n, 34)
    sources = torch.cat([backward, (nothing + 1).expand(len(y), 1), first + pixel], dim=1)
    columns = torch.cat([pixel - shift, pixel, pixel + shift], dim=1).clamp_(0, len(y) - 1)
    starts = torch.arange(len(y) + 1) * columns.shape[1]
    return sources.flatten().to(device), starts.int().to(device), columns.flatten().int().to(device)


@lru_cache
def chebyshev_coefficients(power: int) -> tuple[float, ...]:
    """a_j with x^power = sum_j a_j T_j(x) on [-1, 1], without the last ones, which add up to less than `NEGLIGIBLE`."""
    coefficients = [0.0] * (power + 1)
    for j in range(power % 2, power + 1, 2):
        coefficients[j] = math.comb(power, (power - j) // 2) / 2 ** (power - 1 if j else power)
    left_out = 0.0
    while len(coefficients) > 2 and left_out + coefficients[-1] < NEGLIGIBLE:
        left_out += coefficients.pop()
    return tuple(coefficients)
