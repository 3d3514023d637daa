"""The network of IRNet (CVPR 2019): class boundaries and displacements to instance centres from a frozen ResNet."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import BasicBlock

from utils.checkpoint import fill, load_checkpoint
from utils.errors import UserError

BACKBONES = ("resnet50", "resnet-toy")
EDGE_UPSAMPLING = (1, 1, 2, 4, 4)
STRIDE = 4  # of both outputs
TOY_WEIGHTS = Path(__file__).parent.parent / "toy" / "resnet.pt"


class EdgeOutput(NamedTuple):
    """The network's outputs for B photos at stride 4: (h, w) = ((H - 1) // 4 + 1, (W - 1) // 4 + 1)."""

    edge_logits: torch.Tensor  # (B, 1, h, w)
    displacement: torch.Tensor  # (B, 2, h, w): y and x, in pixels of this map, mean not subtracted


class Backbone(nn.Module):
    """A ResNet as five stages: its stem and its four layers, with the channels of each."""

    def __init__(self, stem: nn.Module, layers: Sequence[nn.Module], channels: tuple[int, ...]):
        super().__init__()
        self.stem, self.layers, self.channels = stem, nn.ModuleList(layers), channels

    def forward(self, photos: torch.Tensor) -> list[torch.Tensor]:
        """photos: (B, 3, H, W). Returns x1..x5 at strides 4, 4, 8, 16, 16."""
        stages = [self.stem(photos)]
        for layer in self.layers:
            stages.append(layer(stages[-1]))
        return stages


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
        h, w = stages[1].shape[-2:]
        maps = [level(stage)[..., :h, :w] for level, stage in zip(self.levels, stages, strict=True)]
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
        (h, w), (deep_h, deep_w) = stages[1].shape[-2:], stages[2].shape[-2:]
        d1, d2, *deep = (level(stage) for level, stage in zip(self.levels, stages, strict=True))
        merged = self.deep(torch.cat([d[..., :deep_h, :deep_w] for d in deep], dim=1))
        return self.merge(torch.cat([d1, d2, merged[..., :h, :w]], dim=1))


def normed(inputs: int, outputs: int, groups: int, upsampling: int = 1) -> nn.Sequential:
    """1 x 1 convolution, group norm, bilinear upsampling, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs)]
    if upsampling > 1:
        layers.append(nn.Upsample(scale_factor=upsampling, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU())


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
        self.backbone.eval()  # its batch norms always use the statistics they came with
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
    """A new network on `resnet50` or `resnet-toy`.

    With `pretrained` the backbone has torchvision's ImageNet weights, or those that `toy.make_clip` trained; else
    random ones. UserError if `backbone` is unknown or its weights cannot be had.
    """
    if backbone not in BACKBONES:
        raise UserError(f"there is no backbone '{backbone}'; choose one of {', '.join(BACKBONES)}")
    if backbone == "resnet50":
        return EdgeDisplacement(_resnet50(pretrained))
    toy = toy_backbone()
    if pretrained:
        hint = "make it with: bash scripts/make_toy_clip.sh"
        fill(toy, load_checkpoint(TOY_WEIGHTS, hint), TOY_WEIGHTS, hint)
    return EdgeDisplacement(toy)


def _resnet50(pretrained: bool) -> Backbone:
    weights = ResNet50_Weights.IMAGENET1K_V1 if pretrained else None
    try:
        resnet = resnet50(weights=weights)
    except (OSError, RuntimeError) as error:  # no network (urllib's errors are OSErrors); a wrong hash
        file = ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
        raise UserError(
            f"cannot download the ImageNet weights of ResNet-50 ({error}); "
            f"put {file} into {torch.hub.get_dir()}/checkpoints"
        ) from None
    for module in resnet.layer4[0].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)  # the last stage keeps its input's resolution, without dilation
    stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
    return Backbone(stem, [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4], (64, 256, 512, 1024, 2048))


def toy_backbone() -> Backbone:
    """The same strides with one narrow block per layer, for the toy world."""
    channels, strides = (48, 48, 96, 144, 144), (1, 2, 2, 1)
    stem = nn.Sequential(
        nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
    layers = []
    for (inputs, outputs), stride in zip(pairwise(channels), strides, strict=True):
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        layers.append(BasicBlock(inputs, outputs, stride, shortcut if inputs != outputs else None))
    return Backbone(stem, layers, channels)


def load_network(path: Path) -> EdgeDisplacement:
    """The network of a checkpoint, which holds `backbone` (a name) and `network` (a state dict).

    In evaluation mode, on the CPU. UserError if the file is absent, damaged or something else.
    """
    hint = "make it with --train_irn_pass True"
    content = load_checkpoint(path, hint)
    if not {"backbone", "network"} <= content.keys() or not isinstance(content["network"], dict):
        raise UserError(f"{path} is not a checkpoint of IRNet; {hint}")
    network = build_network(content["backbone"])
    fill(network, content["network"], path, hint)
    return network.eval()
