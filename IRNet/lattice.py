"""The permutohedral lattice (Adams, Baek, Davis, Eurographics 2010): Gaussian filtering of N points with d features.

Every point is splatted onto the d + 1 corners of the lattice simplex it lies in, the corners are blurred along the
d + 1 axes, and the points read the result back. Cost and memory are linear in N.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F


@dataclass
class Lattice:
    """A lattice ready to filter. M vertices, N points, d features.

    splat: sparse (M + 1, N); row M is a vertex that stays 0, the neighbour of vertices that miss one.
    slice_: sparse (N, M + 1), the transpose of `splat`.
    neighbours: int (d + 1, 2, M + 1), the two neighbours of every vertex along every axis.
    """

    splat: torch.Tensor
    slice_: torch.Tensor
    neighbours: torch.Tensor

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """The Gaussian sum over all points, up to a constant factor. values, result: float32 (N, C)."""
        vertices = self.splat @ values  # (M + 1, C)
        for lower, upper in self.neighbours:
            sides = vertices.index_select(0, lower).add_(vertices.index_select(0, upper))
            vertices.add_(sides, alpha=0.5)
        return self.slice_ @ vertices


def build_lattice(features: torch.Tensor) -> Lattice:
    """The lattice of `features`, float32 (d, N), in units of the Gaussian's standard deviation."""
    d, points = features.shape
    # Whole blocks of four points, as pydensecrf: the filling ones carry no weight, but their vertices exist.
    features = F.pad(features, (0, -points % 4))
    simplices = _enclosing_simplices(features)
    weights = _barycentric(simplices)  # (d + 1, N4)
    weights[:, points:] = 0
    keys, strides = _vertex_keys(simplices)
    return _assemble(keys, strides, weights, points)


class _Simplices(NamedTuple):
    """The simplex around every point: its remainder-0 vertex and the order of the coordinates' residuals."""

    origin: torch.Tensor  # float32 (d + 1, N), whole multiples of d + 1 (after the return to the plane: summing to 0)
    rank: torch.Tensor  # int64 (d + 1, N), a permutation of 0..d a point
    residual: torch.Tensor  # float32 (d + 1, N), elevated coordinate minus origin


def _elevate(features: torch.Tensor) -> torch.Tensor:
    """The isometry from d dimensions to the hyperplane of d + 1 coordinates that sum to 0, in units of the lattice."""
    # float32 and this order of summation throughout: a rounding difference would move points to another simplex.
    d = len(features)
    elevated = torch.empty(d + 1, features.shape[1], device=features.device)
    total = torch.zeros_like(features[0])
    for j in range(d, 0, -1):
        scaled = features[j - 1] * (math.sqrt(2 / 3) * (d + 1) / math.sqrt(j * (j + 1)))
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def _enclosing_simplices(features: torch.Tensor) -> _Simplices:
    elevated = _elevate(features)
    corners = len(elevated)  # d + 1
    steps = torch.round(elevated * (1 / corners))  # half to even
    origin = corners * steps
    rank = _descending_rank(elevated - origin) + steps.sum(0).int()
    # Rounding may have left the plane by a few steps: the coordinates rounded furthest are moved back.
    low, high = rank < 0, rank >= corners
    shift = corners * (low.int() - high.int())
    origin = origin + shift
    return _Simplices(origin, (rank + shift).long(), elevated - origin)


def _descending_rank(values: torch.Tensor) -> torch.Tensor:
    """Per column the place of each entry from the largest (0) down; of equal ones the later comes first. int32."""
    rank = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            less = values[i] < values[j]
            rank[i] += less
            rank[j] += ~less
    return rank


def _barycentric(simplices: _Simplices) -> torch.Tensor:
    """The weights of the d + 1 vertices, float32 (d + 1, N), summing to 1."""
    corners = len(simplices.rank)
    by_rank = torch.empty_like(simplices.residual).scatter_(0, simplices.rank, simplices.residual * (1 / corners))
    first = by_rank[-1:] + (1 - by_rank[:1])
    return torch.cat([first, by_rank[:-1].flip(0) - by_rank[1:].flip(0)])


def _vertex_keys(simplices: _Simplices) -> tuple[torch.Tensor, torch.Tensor]:
    """Every vertex's d coordinates packed into one integer, int64 (d + 1, N), and the factors of the packing, (d + 1,).

    The last coordinate follows from the others and has factor 0.
    """
    corners = len(simplices.rank)
    lowest, highest = simplices.origin[:-1].aminmax(dim=1)
    # A margin of two cells on both sides, so that neighbours of the outermost vertices do not wrap.
    radix = (highest - lowest).long() + 4 * corners
    strides = torch.cat([radix.new_ones(1), radix.cumprod(0)[:-1], radix.new_zeros(1)])
    first = ((simplices.origin[:-1] - lowest[:, None]).long() * strides[:-1, None]).sum(0)
    # Vertex p: p added to every coordinate, d + 1 taken from the p coordinates of the highest ranks.
    stride_by_rank = torch.empty_like(simplices.rank).scatter_(
        0, simplices.rank, strides[:, None].expand_as(simplices.rank)
    )
    steps = strides.sum() - corners * stride_by_rank[1:].flip(0)  # (d, N)
    return torch.cat([first[None], steps]).cumsum(0), strides


def _assemble(keys: torch.Tensor, strides: torch.Tensor, weights: torch.Tensor, points: int) -> Lattice:
    """One stable sort of the keys numbers the vertices and orders the entries of the splat matrix."""
    corners, filled = keys.shape
    ordered, order = keys.flatten().sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    vertex = new.cumsum(0).sub_(1)
    vertices = ordered[new]
    starts = new.nonzero()[:, 0]
    end = starts.new_full((2,), len(ordered))  # the row of the vertex that stays 0 is empty
    splat = _csr(
        torch.cat([starts, end]),
        (order % filled).clamp_(max=points - 1),
        weights.flatten()[order],
        (len(vertices) + 1, points),
    )
    corner = torch.empty_like(order).scatter_(0, order, vertex).view(corners, filled)[:, :points]
    slice_ = _csr(
        torch.arange(points + 1, device=keys.device) * corners,
        corner.t().flatten(),
        weights[:, :points].t().flatten(),
        (points, len(vertices) + 1),
    )
    return Lattice(splat, slice_, _neighbours(vertices, strides))


def _neighbours(vertices: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """int32 (d + 1, 2, M + 1); M where there is none. vertices: the packed keys, ascending."""
    count = len(vertices)
    result = vertices.new_full((len(strides), 2, count + 1), count, dtype=torch.int32)
    for axis, stride in enumerate(strides):
        wanted = vertices - strides.sum() + len(strides) * stride
        place = torch.searchsorted(vertices, wanted).clamp_(max=count - 1)
        source = (vertices[place] == wanted).nonzero()[:, 0]
        target = place[source]
        result[axis, 0, source] = target.int()
        result[axis, 1, target] = source.int()  # the relation is mutual
    return result


def _csr(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values, size, check_invariants=False)
