"""The ResNets that IRNet reads its features from: torchvision's ResNet-50, and a small one for the toy world."""

import torch
from torch import nn
from torchvision.models import ResNet, ResNet50_Weights, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from utils.errors import UserError

BACKBONES = ("resnet50", "resnet-toy")


class Backbone(nn.Module):
    """A ResNet cut into five stages; the last one keeps its input's resolution (stride 1, no dilation)."""

    def __init__(self, resnet: ResNet):
        super().__init__()
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.layers = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        self.channels = (resnet.conv1.out_channels, *(_output_channels(layer) for layer in self.layers))
        _remove_stride(resnet.layer4[0])

    def forward(self, photos: torch.Tensor) -> list[torch.Tensor]:
        """photos: (B, 3, H, W). Returns x1..x5 at strides 4, 4, 8, 16, 16."""
        stages = [self.stem(photos)]
        for layer in self.layers:
            stages.append(layer(stages[-1]))
        return stages


def build_backbone(name: str, pretrained: bool) -> Backbone:
    """`resnet50`, with torchvision's ImageNet weights if `pretrained`; `resnet-toy` has seeded random weights."""
    if name == "resnet50":
        return Backbone(_resnet50(pretrained))
    if name == "resnet-toy":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Backbone(ResNet(BasicBlock, [1, 1, 1, 1]))
    raise UserError(f"there is no backbone '{name}'; choose one of {', '.join(BACKBONES)}")


def _resnet50(pretrained: bool) -> ResNet:
    try:
        return resnet50(weights=ResNet50_Weights.IMAGENET1K_V1 if pretrained else None)
    except (OSError, RuntimeError) as error:  # no network (urllib's errors are OSErrors); a wrong hash
        raise UserError(
            f"the ImageNet weights of ResNet-50 cannot be fetched ({error}); put "
            f"{ResNet50_Weights.IMAGENET1K_V1.url.rsplit('/', 1)[1]} into {torch.hub.get_dir()}/checkpoints"
        ) from None


def _output_channels(layer: nn.Sequential) -> int:
    block = layer[-1]
    return (block.conv3 if isinstance(block, Bottleneck) else block.conv2).out_channels


def _remove_stride(block: BasicBlock | Bottleneck) -> None:
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.stride = (1, 1)
