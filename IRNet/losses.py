"""The training losses of IRNet (CVPR 2019, section 4): which neighbours belong together, and where their centre lies.

Pairs are formed by shifted views of the maps: no index tables, and nothing of them in a checkpoint.
"""

from typing import NamedTuple

import torch
from torch import nn

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN
from IRNet.pairs import pair_affinity, search_offsets, shifted

EPSILON = 1e-5


class Pairs(NamedTuple):
    """Which pairs are what, bool (B, K, h, w): K offsets in the order of `search_offsets`, h x w sources."""

    background: torch.Tensor
    foreground: torch.Tensor
    different: torch.Tensor


class PairLosses(NamedTuple):
    """The loss of every pair, were it of that kind, float (B, K, h, w); of displacements (B, 2, K, h, w)."""

    attract: torch.Tensor
    repel: torch.Tensor
    foreground_displacement: torch.Tensor
    background_displacement: torch.Tensor


class AffinityDisplacementLoss(nn.Module):
    """Edges from the affinity of pairs, displacements towards a common centre. radius: of the pairs, in map pixels."""

    def __init__(self, radius: int = 10):
        super().__init__()
        self.radius = radius

    def forward(
        self, edge_logits: torch.Tensor, displacement: torch.Tensor, label: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """edge_logits: (B, 1, H, W). displacement: (B, 2, H, W), y and x in map pixels. label: uint8 (B, H, W).

        Returns the four losses by name and their weighted sum as `total`, scalars.
        """
        pairs = sort_pairs(label, self.radius)
        losses = pair_losses(edge_logits, displacement, self.radius)
        positive = _mean(losses.attract, pairs.background) / 2 + _mean(losses.attract, pairs.foreground) / 2
        negative = _mean(losses.repel, pairs.different)
        foreground = _mean(losses.foreground_displacement, pairs.foreground)
        background = _mean(losses.background_displacement, pairs.background)
        return {
            "positive": positive,
            "negative": negative,
            "displacement_foreground": foreground,
            "displacement_background": background,
            "total": (positive + negative) / 2 + (foreground + background) / 2,
        }


def sort_pairs(label: torch.Tensor, radius: int) -> Pairs:
    """label: uint8 (B, H, W). Pixels of the label `UNKNOWN` take part in no pair."""
    source = shifted(label, (0, 0), radius)[:, None]  # (B, 1, h, w)
    target = torch.stack([shifted(label, offset, radius) for offset in search_offsets(radius)], dim=1)
    known = (source != UNKNOWN) & (target != UNKNOWN)
    equal = known & (source == target)
    return Pairs(equal & (source == BACKGROUND), equal & (source == FOREGROUND), known & ~equal)


def pair_losses(edge_logits: torch.Tensor, displacement: torch.Tensor, radius: int) -> PairLosses:
    """See `AffinityDisplacementLoss.forward` and `PairLosses`."""
    offsets = search_offsets(radius)
    affinity = pair_affinity(torch.sigmoid(edge_logits[:, 0]), radius)  # (B, K, h, w)
    targets = torch.stack([shifted(displacement, offset, radius) for offset in offsets], dim=2)
    difference = shifted(displacement, (0, 0), radius)[:, :, None] - targets  # (B, 2, K, h, w)
    wanted = torch.tensor(offsets, dtype=difference.dtype, device=difference.device).t()[:, :, None, None]
    return PairLosses(
        attract=-torch.log(affinity + EPSILON),
        repel=-torch.log(1 + EPSILON - affinity),
        foreground_displacement=(difference - wanted).abs(),
        background_displacement=difference.abs(),
    )


def _mean(losses: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The mean over the chosen pairs (and both components, where there are two); 0 where none is chosen."""
    weights = chosen if losses.dim() == chosen.dim() else chosen[:, None].expand_as(losses)
    return (losses * weights).sum() / (weights.sum() + EPSILON)
