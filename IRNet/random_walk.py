"""The random walk that spreads scores up to the edges (IRNet, CVPR 2019, section 5), in memory linear in the pixels.

T = A^beta with normalised columns; the result is x T^(2^exp_times). T is a 69-point stencil and similar to a symmetric
matrix with its spectrum in [-1, 1], so its power is a short Chebyshev series: for T^256 about 80 products, not 256.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from IRNet.affinity import pair_affinity, search_offsets

RADIUS = 5
NEGLIGIBLE = 1e-6  # the sum of the terms left out of the series, relative to the largest score


def random_walk(scores: torch.Tensor, edge: torch.Tensor, beta: float = 10, exp_times: int = 8) -> torch.Tensor:
    """Spread `scores` for 2^exp_times steps.

    scores: float (K, h, w), at least 0, one map per instance. edge: float (h, w), 0..1. Returns float64 (K, h, w).
    """
    height, width = edge.shape
    step = Stencil(edge.double(), beta)
    coefficients = chebyshev_coefficients(2**exp_times)
    previous = step.flatten(scores.double() * (1 - edge.double()))
    current = step(previous)
    walked = coefficients[0] * previous + coefficients[1] * current
    for coefficient in coefficients[2:]:
        previous, current = current, step(current).mul_(2).sub_(previous)
        walked.add_(current, alpha=coefficient)
    walked = walked.unflatten(-1, (height, step.width))[..., :width]
    return walked.clamp_(min=0)  # the series leaves about -1e-6 where the walk is 0


class Stencil:
    """One step of the walk, y = diag(A 1)^-1 A x, with A kept as one map of weights per offset.

    Maps are padded on the right, by as much as an offset reaches sideways, and flattened: a shift in y and x is then
    one contiguous slice.
    """

    def __init__(self, edge: torch.Tensor, beta: float):
        height, width = edge.shape
        reach = RADIUS - 1
        self.width = width + reach
        # Outside the map the edge is 1, so that a pair that leaves it has weight 0.
        affinity = pair_affinity(F.pad(edge, (reach, reach, 0, reach), value=1), RADIUS)  # (34, h, w)
        self.weights = [
            (dy * self.width + dx, self.flatten(weight)[: (height - dy) * self.width - dx])
            for (dy, dx), weight in zip(search_offsets(RADIUS), affinity.pow_(beta), strict=True)
            if dy < height and abs(dx) < width
        ]
        self.degree = edge.new_ones(height * self.width)
        self.degree = self(self.degree)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x, result: (..., n)."""
        y = x.clone()
        for shift, weight in self.weights:
            count = len(weight)
            y[..., :count].addcmul_(weight, x[..., shift : shift + count])
            y[..., shift : shift + count].addcmul_(weight, x[..., :count])
        return y.div_(self.degree)

    def flatten(self, maps: torch.Tensor) -> torch.Tensor:
        """maps: (..., h, w). Returns them padded on the right with 0 and flattened, (..., n)."""
        return F.pad(maps, (0, self.width - maps.shape[-1])).flatten(-2)


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
