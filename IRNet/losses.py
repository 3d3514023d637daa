"""The training losses of IRNet (CVPR 2019, section 4): which neighbours belong together, and where their centre lies.

Pairs are formed by shifted views of the maps: there are no index tables, and none in a checkpoint.
"""

from collections.abc import Sequence

import torch

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN
from IRNet.affinity import Offset, pair_affinity, search_offsets, shifted
from utils.distributed import all_gather

RADIUS = 10  # of the pairs, in pixels of the map
EPSILON = 1e-5
OFFSETS_AT_ONCE = 38  # of 152: the intermediate results of all of them together take a gigabyte


def affinity_displacement_losses(
    edge_logits: torch.Tensor, displacement: torch.Tensor, label: torch.Tensor, radius: int = RADIUS
) -> dict[str, torch.Tensor]:
    """Edges from the affinity of pairs, displacements towards a common centre.

    edge_logits: (B, 1, H, W). displacement: (B, 2, H, W), y and x in map pixels. label: uint8 (B, H, W). Returns the
    four losses by name and their weighted sum as `total`, scalars. Several processes divide by the pairs of all of
    them, so the sum of their losses is the loss of the whole batch. Only `total` has gradients: they are found here,
    some offsets at a time, and no pair is kept for later.
    """
    offsets = search_offsets(radius)
    chunks = [offsets[start : start + OFFSETS_AT_ONCE] for start in range(0, len(offsets), OFFSETS_AT_ONCE)]
    pairs = [sort_pairs(label, radius, chunk) for chunk in chunks]
    counts = all_gather([int(sum(kind.sum() for kind in kinds)) for kinds in zip(*pairs, strict=True)])
    n_background, n_foreground, n_different = (sum(kind) for kind in zip(*counts, strict=True))
    maps = edge_logits, displacement
    leaves = [each.detach().requires_grad_() for each in maps]
    sums: dict[str, torch.Tensor] = {}
    for chunk, (background, foreground, different) in zip(chunks, pairs, strict=True):
        with torch.enable_grad():
            attract, repel, to_centre, to_each_other = pair_losses(*leaves, radius, chunk)
            positive = mean(attract, background, n_background) / 2 + mean(attract, foreground, n_foreground) / 2
            negative = mean(repel, different, n_different)
            # A displacement has two components, and each counts.
            displacement_foreground = mean(to_centre, foreground[:, None], 2 * n_foreground)
            displacement_background = mean(to_each_other, background[:, None], 2 * n_background)
            losses = {
                "positive": positive,
                "negative": negative,
                "displacement_foreground": displacement_foreground,
                "displacement_background": displacement_background,
                "total": (positive + negative) / 2 + (displacement_foreground + displacement_background) / 2,
            }
            losses["total"].backward()
        sums = {name: sums.get(name, 0) + loss.detach() for name, loss in losses.items()}
    for each, leaf in zip(maps, leaves, strict=True):
        sums["total"] = sums["total"] + ((each - each.detach()) * leaf.grad).sum()  # adds the gradient, and 0
    return sums


def sort_pairs(label: torch.Tensor, radius: int, offsets: Sequence[Offset]) -> tuple[torch.Tensor, ...]:
    """The pairs within the background, within the foreground, and of different labels. label: uint8 (B, H, W).

    Each bool (B, K, h, w): K offsets, h x w sources. Pixels labelled `UNKNOWN` take part in no pair.
    """
    source = shifted(label, (0, 0), radius)[:, None]  # (B, 1, h, w)
    target = torch.stack([shifted(label, offset, radius) for offset in offsets], dim=1)
    known = (source != UNKNOWN) & (target != UNKNOWN)
    equal = known & (source == target)
    return equal & (source == BACKGROUND), equal & (source == FOREGROUND), known & ~equal


def pair_losses(
    edge_logits: torch.Tensor, displacement: torch.Tensor, radius: int, offsets: Sequence[Offset]
) -> tuple[torch.Tensor, ...]:
    """What every pair would lose if it were of one kind: equal, different, within the foreground, the background.

    The maps as for `affinity_displacement_losses`. The first two are float (B, K, h, w); the others, of the
    displacements alone, (B, 2, K, h, w).
    """
    affinity = pair_affinity(torch.sigmoid(edge_logits[:, 0]), radius, offsets)  # (B, K, h, w)
    targets = torch.stack([shifted(displacement, offset, radius) for offset in offsets], dim=2)
    difference = shifted(displacement, (0, 0), radius)[:, :, None] - targets  # (B, 2, K, h, w)
    wanted = torch.tensor(offsets, dtype=difference.dtype, device=difference.device).t()[:, :, None, None]
    attract, repel = -torch.log(affinity + EPSILON), -torch.log(1 + EPSILON - affinity)
    return attract, repel, (difference - wanted).abs(), difference.abs()


def mean(losses: torch.Tensor, chosen: torch.Tensor, count: int) -> torch.Tensor:
    """The sum of the chosen losses over `count`; 0 if there are none."""
    return (losses * chosen).sum() / (count + EPSILON)
