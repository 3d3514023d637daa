"""The network of IRNet (CVPR 2019): class boundaries and displacements to instance centres from a frozen ResNet."""

from typing import NamedTuple

import torch
from torch import nn

from IRNet.backbone import Backbone, build_backbone

EDGE_UPSAMPLING = (1, 1, 2, 4, 4)
STRIDE = 4  # of both outputs


class EdgeOutput(NamedTuple):
    """What the network says of B photos, at stride 4: (h, w) = ((H - 1) // 4 + 1, (W - 1) // 4 + 1)."""

    edge_logits: torch.Tensor  # (B, 1, h, w)
    displacement: torch.Tensor  # (B, 2, h, w): y and x, in pixels of this map, mean not subtracted


def normed(inputs: int, outputs: int, groups: int, upsampling: int = 1) -> nn.Sequential:
    """1 x 1 convolution, group norm, bilinear upsampling, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs)]
    if upsampling > 1:
        layers.append(nn.Upsample(scale_factor=upsampling, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU())


class EdgeBranch(nn.Module):
    """The five stages, 32 channels each at stride 4, to one logit."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.levels = nn.ModuleList(
            normed(count, 32, 4, factor) for count, factor in zip(channels, EDGE_UPSAMPLING, strict=True)
        )
        self.logit = nn.Conv2d(160, 1, 1)

    def forward(self, stages: list[torch.Tensor]) -> torch.Tensor:
        """stages: x1..x5, (B, C_i, H_i, W_i). Returns (B, 1, h, w)."""
        size = stages[1].shape[-2:]
        maps = [_cut(level(stage), size) for level, stage in zip(self.levels, stages, strict=True)]
        return self.logit(torch.cat(maps, dim=1))


class DisplacementBranch(nn.Module):
    """The three deep stages merged at stride 8, then with the two shallow ones at stride 4, to two numbers a pixel."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        widths, groups, factors = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16), (1, 1, 1, 2, 2)
        self.levels = nn.ModuleList(map(normed, channels, widths, groups, factors))
        self.deep = normed(768, 256, 16, 2)
        self.merge = nn.Sequential(*normed(448, 256, 16), nn.Conv2d(256, 2, 1, bias=False))

    def forward(self, stages: list[torch.Tensor]) -> torch.Tensor:
        """stages: x1..x5, (B, C_i, H_i, W_i). Returns (B, 2, h, w)."""
        fine, coarse = stages[1].shape[-2:], stages[2].shape[-2:]
        d1, d2, *deep = (level(stage) for level, stage in zip(self.levels, stages, strict=True))
        merged = self.deep(torch.cat([_cut(d, coarse) for d in deep], dim=1))
        return self.merge(torch.cat([d1, d2, _cut(merged, fine)], dim=1))


class EdgeDisplacement(nn.Module):
    """Frozen backbone, edge branch, displacement branch and the mean displacement over the training photos."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.edge_branch = EdgeBranch(backbone.channels)
        self.displacement_branch = DisplacementBranch(backbone.channels)
        self.register_buffer("mean_displacement", torch.zeros(2))

    def train(self, mode: bool = True) -> "EdgeDisplacement":
        super().train(mode)
        self.backbone.eval()  # its batch norms use the statistics they came with, always
        return self

    def forward(self, photos: torch.Tensor) -> EdgeOutput:
        """photos: float (B, 3, H, W), normalised with ImageNet's statistics."""
        with torch.no_grad():
            stages = self.backbone(photos)
        return EdgeOutput(self.edge_branch(stages), self.displacement_branch(stages))

    @torch.no_grad()
    def detect(self, photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges and centred displacements of one photo, float (3, H, W), normalised.

        Returns edge probabilities (h, w), averaged with those of the mirrored photo, and displacements (2, h, w).
        """
        stages = self.backbone(torch.stack([photo, photo.flip(-1)]))
        logits = self.edge_branch(stages)[:, 0]  # (2, h, w)
        # Kept quirk: the mirrored map is up to 3 photo pixels beside the other, unless W % 4 is 1.
        edge = torch.sigmoid(logits[0] / 2 + logits[1].flip(-1) / 2)
        displacement = self.displacement_branch([stage[:1] for stage in stages])[0]
        return edge, displacement - self.mean_displacement[:, None, None]


def build_network(backbone: str, pretrained: bool = False) -> EdgeDisplacement:
    """A new network; raises UserError where `backbone` is unknown or its weights cannot be fetched."""
    return EdgeDisplacement(build_backbone(backbone, pretrained))


def _cut(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return maps[..., : size[0], : size[1]]
