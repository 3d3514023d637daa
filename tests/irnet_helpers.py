"""What the tests of IRNet share: the published order, photos, and golden weights under this project's names."""

import re

import numpy as np
import torch
from PIL import Image

from IRNet.affinity import search_offsets
from IRNet.network import EdgeDisplacement, build_network
from tests.golden import REFERENCE, figures
from tests.reference.golden_weights import golden_tensor


def published_order(radius: int) -> list[int]:
    """For every offset of the published order its place in ours."""
    published = figures("irnet_path_index")[f"r{radius}.search_dst"].tolist()
    return [search_offsets(radius).index(tuple(offset)) for offset in published]


def photo(name: str) -> np.ndarray:
    """A reference photo, uint8 (H, W, 3)."""
    return np.array(Image.open(REFERENCE / "irnet_photos" / f"irnet_photo_{name}.png").convert("RGB"))


def bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A bool array from its packed bits."""
    return np.unpackbits(packed)[: np.prod(shape)].reshape(shape).astype(bool)


def published_name(name: str) -> str:
    """The published network's name of one of our tensors."""
    name = re.sub(r"^backbone\.stem\.0\.", "resnet50.conv1.", name)
    name = re.sub(r"^backbone\.stem\.1\.", "resnet50.bn1.", name)
    name = re.sub(r"^backbone\.layers\.(\d)", lambda m: f"resnet50.layer{int(m[1]) + 1}", name)
    name = re.sub(r"^edge_branch\.levels\.(\d)", lambda m: f"fc_edge{int(m[1]) + 1}", name)
    name = re.sub(r"^displacement_branch\.levels\.(\d)", lambda m: f"fc_dp{int(m[1]) + 1}", name)
    name = name.replace("edge_branch.logit", "fc_edge6").replace("displacement_branch.deep", "fc_dp6")
    return name.replace("displacement_branch.merge", "fc_dp7").replace("mean_displacement", "mean_shift.running_mean")


def golden_network() -> EdgeDisplacement:
    """ResNet-50's network with the weights that the reference figures were made with, in evaluation mode."""
    network = build_network("resnet50")
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(golden_tensor(published_name(name), value.shape)))
    return network.eval()
