"""The permutohedral lattice (Adams, Baek, Davis, Eurographics 2010): Gaussian filtering of N points with d features.

Every point is splatted onto the d + 1 corners of the lattice simplex it lies in, the corners are blurred along the
d + 1 axes, and the points read the result back. Cost and memory are linear in N.
"""

import math
import warnings

import torch
import torch.nn.functional as F


class Lattice:
    """The lattice of `features`, float32 (d, N), in units of the Gaussian's standard deviation. It has M vertices."""

    def __init__(self, features: torch.Tensor):
        points = features.shape[1]
        # Whole blocks of four points, as in pydensecrf: the padding carries no weight, but its vertices exist.
        origin, rank, weights = _enclosing_simplices(F.pad(features, (0, -points % 4)))
        weights[:, points:] = 0
        keys, strides = _vertex_keys(origin, rank)
        corners, filled = keys.shape  # d + 1, N4
        # Sorted, where pydensecrf has a hash table: that works on a GPU too. Stable, because a vertex then adds up its
        # points in their order, as there.
        ordered, order = keys.flatten().sort(stable=True)
        new = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=new[1:])
        vertices = ordered[new]
        # Row M of the splat matrix is empty: a vertex that stays 0 stands for every neighbour that does not exist.
        starts = torch.cat([new.nonzero()[:, 0], order.new_full((2,), len(ordered))])
        columns = (order % filled).clamp_(max=points - 1)  # of padding any: its weight is 0
        self.splat = csr(starts, columns, weights.flatten()[order], (len(vertices) + 1, points))
        vertex = new.cumsum(0).sub_(1)
        corner = torch.empty_like(order).scatter_(0, order, vertex).view(corners, filled)[:, :points]
        starts = torch.arange(points + 1, device=keys.device) * corners
        values = weights[:, :points].t().flatten()
        self.slice = csr(starts, corner.t().flatten(), values, (points, len(vertices) + 1))  # the transpose of splat
        self.neighbours = _neighbours(vertices, strides)

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """The Gaussian sum over all points, up to a constant factor. values, result: float32 (N, C)."""
        vertices = self.splat @ values  # (M + 1, C)
        # (1/2, 1, 1/2), not half of it: the kernel divides by what it makes of ones.
        for lower, upper in self.neighbours:
            sides = vertices.index_select(0, lower).add_(vertices.index_select(0, upper))
            vertices.add_(sides, alpha=0.5)
        return self.slice @ vertices


def _enclosing_simplices(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The simplex around every point, each (d + 1, N). features: float32 (d, N).

    Returns its remainder-0 vertex, float32 (whole multiples of d + 1 that sum to 0), the rank of each coordinate's
    residual, int64 (0 is the largest), and the point's barycentric coordinates, float32 (summing to 1).
    """
    corners = len(features) + 1
    # The isometry to the hyperplane of d + 1 coordinates that sum to 0, in units of the lattice. float32 and this
    # order of summation matter: a rounding difference would move points to another simplex.
    elevated = torch.empty(corners, features.shape[1], device=features.device)
    total = torch.zeros_like(features[0])
    for j in range(len(features), 0, -1):
        # sqrt(2 / 3) cells: the standard deviation of splatting, blurring and reading back (Adams et al.).
        scaled = features[j - 1] * (math.sqrt(2 / 3) * corners / math.sqrt(j * (j + 1)))
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    steps = torch.round(elevated * (1 / corners))  # half to even
    origin = corners * steps
    rank = _descending_rank(elevated - origin) + steps.sum(0).int()
    # Rounding may have left the plane by a few steps: the coordinates rounded furthest are moved back.
    shift = corners * ((rank < 0).int() - (rank >= corners).int())
    origin, rank = origin + shift, (rank + shift).long()
    # The gaps between the sorted residuals are the barycentric coordinates.
    by_rank = torch.empty_like(elevated).scatter_(0, rank, (elevated - origin) * (1 / corners))
    weights = torch.cat([by_rank[-1:] + (1 - by_rank[:1]), by_rank[:-1].flip(0) - by_rank[1:].flip(0)])
    return origin, rank, weights


def _descending_rank(values: torch.Tensor) -> torch.Tensor:
    """The rank of each entry in its column, int32: the largest has 0, and of equal ones the earlier is first."""
    rank = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    for i in range(len(values)):
        for j in range(i + 1, len(values)):  # ten times as fast as argsort
            less = values[i] < values[j]
            rank[i] += less
            rank[j] += ~less
    return rank


def _vertex_keys(origin: torch.Tensor, rank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every vertex's d coordinates packed into one integer, int64 (d + 1, N), and the factors of the packing, (d + 1,).

    The last coordinate follows from the others and has factor 0.
    """
    corners = len(rank)
    lowest, highest = origin[:-1].aminmax(dim=1)
    # A margin of two cells on both sides, so that the outermost vertices' neighbours do not wrap around.
    radix = (highest - lowest).long() + 4 * corners
    strides = torch.cat([radix.new_ones(1), radix.cumprod(0)[:-1], radix.new_zeros(1)])
    first = ((origin[:-1] - lowest[:, None]).long() * strides[:-1, None]).sum(0)
    # Vertex p: p added to every coordinate, d + 1 taken from the p coordinates of the highest ranks.
    stride_by_rank = torch.empty_like(rank).scatter_(0, rank, strides[:, None].expand_as(rank))
    steps = strides.sum() - corners * stride_by_rank[1:].flip(0)  # (d, N)
    return torch.cat([first[None], steps]).cumsum(0), strides


def _neighbours(vertices: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Every vertex's two along every axis, int32 (d + 1, 2, M + 1); M for none. vertices: packed keys, ascending."""
    count = len(vertices)
    result = vertices.new_full((len(strides), 2, count + 1), count, dtype=torch.int32)
    for axis, stride in enumerate(strides):
        wanted = vertices - strides.sum() + len(strides) * stride  # d more on this axis, 1 less on all others
        target = torch.searchsorted(vertices, wanted).clamp_(max=count - 1)
        source = (vertices[target] == wanted).nonzero()[:, 0]
        target = target[source]
        result[axis, 0, source] = target.int()
        result[axis, 1, target] = source.int()  # the relation is mutual
    return result


def csr(starts: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A sparse matrix in compressed rows: row i has the entries from starts[i] to starts[i + 1]."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values, size, check_invariants=False)
