"""The random walk that spreads scores up to the edges (IRNet, CVPR 2019, section 5), in memory linear in the pixels.

T = A^beta with columns normalised; the result is x T^(2^exp_times). T is a 69-point stencil, similar to a symmetric
matrix with spectrum in [-1, 1], so its power is a short Chebyshev series: for T^256 some 80 products instead of 256.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from IRNet.pairs import pair_affinity, search_offsets

RADIUS = 5
NEGLIGIBLE = 1e-6  # the sum of the series' terms that are left out, relative to the largest score


def random_walk(scores: torch.Tensor, edge: torch.Tensor, beta: float = 10, exp_times: int = 8) -> torch.Tensor:
    """Spread `scores` for 2^exp_times steps.

    scores: float (K, h, w), at least 0, one map an instance. edge: float (h, w), 0..1. Returns float64 (K, h, w).
    """
    height, width = edge.shape
    stencil = Stencil(edge.double(), beta)
    start = stencil.flatten(scores.double() * (1 - edge.double()))
    walked = _power(stencil, start, 2**exp_times)
    return stencil.unflatten(walked, height, width).clamp_(min=0)  # the series leaves about -1e-6 where the walk is 0


class Stencil:
    """One step of the walk, y = diag(A 1)^-1 A x, with A kept as one map of weights per offset.

    Maps are padded right, by as much as an offset reaches to the side, and flattened: a shift in y and x is then one
    contiguous slice. The weight of a pair that leaves the map is 0.
    """

    def __init__(self, edge: torch.Tensor, beta: float):
        height, width = edge.shape
        self.width = width + RADIUS - 1
        self.weights = [
            (dy * self.width + dx, self.flatten(weight)[: (height - dy) * self.width - dx])
            for (dy, dx), weight in zip(search_offsets(RADIUS), _weights(edge, beta), strict=True)
            if dy < height and abs(dx) < width
        ]
        ones = edge.new_ones(height * self.width)
        self.degree = torch.ones_like(ones)
        self.degree = self(ones)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x, result: (..., n)."""
        y = x.clone()
        for shift, weight in self.weights:
            count = len(weight)
            y[..., :count].addcmul_(weight, x[..., shift : shift + count])
            y[..., shift : shift + count].addcmul_(weight, x[..., :count])
        return y.div_(self.degree)

    def flatten(self, maps: torch.Tensor) -> torch.Tensor:
        """maps: (..., h, w). Returns them padded right with 0 and flattened, (..., n)."""
        return F.pad(maps, (0, self.width - maps.shape[-1])).flatten(-2)

    def unflatten(self, flat: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The maps (..., h, w) that `flatten` made `flat` of, without the padding."""
        return flat.unflatten(-1, (height, self.width))[..., :width]


def _weights(edge: torch.Tensor, beta: float) -> torch.Tensor:
    """A's entries for every pair, (34, h, w). Outside the map the edge is 1, so a pair that leaves it has weight 0."""
    reach = RADIUS - 1
    return pair_affinity(F.pad(edge, (reach, reach, 0, reach), value=1), RADIUS).pow_(beta)


@lru_cache
def chebyshev_coefficients(power: int) -> tuple[float, ...]:
    """a_j with x^power = sum_j a_j T_j(x) on [-1, 1], without the last ones that together are below `NEGLIGIBLE`."""
    coefficients = [0.0] * (power + 1)
    for j in range(power % 2, power + 1, 2):
        coefficients[j] = math.comb(power, (power - j) // 2) / 2 ** (power - 1 if j else power)
    left_out = 0.0
    while len(coefficients) > 2 and left_out + coefficients[-1] < NEGLIGIBLE:
        left_out += coefficients.pop()
    return tuple(coefficients)


def _power(step: Stencil, x: torch.Tensor, power: int) -> torch.Tensor:
    coefficients = chebyshev_coefficients(power)
    previous, current = x, step(x)
    result = coefficients[0] * x + coefficients[1] * current
    for coefficient in coefficients[2:]:
        previous, current = current, step(current).mul_(2).sub_(previous)
        result.add_(current, alpha=coefficient)
    return result
