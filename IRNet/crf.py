"""Dense CRF with two labels: binary label maps pulled to the edges of their photo.

Mean-field inference of Kraehenbuehl and Koltun (NeurIPS 2011), with the permutohedral lattice of Adams et al.
(Eurographics 2010) as its Gaussian filter, as pydensecrf computes it. With two labels one number per pixel is enough,
and all label maps of a photo are columns of one filter.
"""

import math
from functools import lru_cache

import torch

from IRNet.lattice import Lattice

# With these the published code calls pydensecrf (there: compat, sxy, srgb).
GAUSSIAN_WEIGHT, GAUSSIAN_SXY = 3.0, 3.0
BILATERAL_WEIGHT, BILATERAL_SXY, BILATERAL_SRGB = 10.0, 50.0, 5.0


class DenseCRF:
    """The CRF of one photo, uint8 (H, W, 3), RGB. Its lattices are built once and serve any number of label maps."""

    def __init__(self, photo: torch.Tensor):
        self.kernels = (
            (GAUSSIAN_WEIGHT, _gaussian_kernel(*photo.shape[:2], photo.device)),
            (BILATERAL_WEIGHT, SymmetricKernel(bilateral_features(photo))),
        )
        # K 1, weighted: with two labels the energy difference is z = u + sum_k w_k (2 K_k q - K_k 1).
        self.of_ones = sum(weight * kernel.of_ones for weight, kernel in self.kernels)  # (N, 1)

    def __call__(self, labels: torch.Tensor, rounds: int = 10, gt_prob: float = 0.7) -> torch.Tensor:
        """Probability of label 1 after `rounds` mean-field updates.

        labels: bool (H, W, C), C label maps, each right with probability `gt_prob`. Returns float32 (H, W, C), 0..1;
        the refined label is `> 0.5`.
        """
        columns = labels.flatten(0, 1).float()  # (N, C)
        unary = math.log(gt_prob / (1 - gt_prob)) * (2 * columns - 1)
        q = torch.sigmoid(unary)
        for _ in range(rounds):
            messages = sum(2 * weight * kernel(q) for weight, kernel in self.kernels)
            q = torch.sigmoid(unary - self.of_ones + messages)
        return q.view(labels.shape)


class SymmetricKernel:
    """K~ = D K D with K the Gaussian filter over `features` and D = diag(K 1)^(-1/2); K~ 1 is near 1, not 1."""

    def __init__(self, features: torch.Tensor):
        self.lattice = Lattice(features)
        ones = torch.ones(features.shape[1], 1, device=features.device)
        self.scale = (self.lattice.filter(ones) + 1e-20).rsqrt()  # (N, 1); the constant is pydensecrf's
        self.of_ones = self(ones)  # (N, 1)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """values: float32 (N, C). Returns float32 (N, C)."""
        return self.scale * self.lattice.filter(self.scale * values)


@lru_cache(maxsize=8)  # it depends on the photo's size alone, and few sizes are common
def _gaussian_kernel(height: int, width: int, device: torch.device) -> SymmetricKernel:
    return SymmetricKernel(positions(height, width, device) / GAUSSIAN_SXY)


def bilateral_features(photo: torch.Tensor) -> torch.Tensor:
    """Position and colour of every pixel in standard deviations, float32 (5, N). photo: uint8 (H, W, 3)."""
    position = positions(*photo.shape[:2], photo.device) / BILATERAL_SXY
    return torch.cat([position, photo.reshape(-1, 3).t().float() / BILATERAL_SRGB])


def positions(height: int, width: int, device: torch.device) -> torch.Tensor:
    """x and y of every pixel, float32 (2, N), row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()]).float()  # (2, N)
