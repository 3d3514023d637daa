"""The rows of IRNet's parts: ours, and the straightforward way as the published code has it."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.timing import Pair, Results, Setting
from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN
from IRNet.affinity import pair_affinity, search_offsets
from IRNet.crf import (
    BILATERAL_WEIGHT,
    GAUSSIAN_SXY,
    GAUSSIAN_WEIGHT,
    DenseCRF,
    SymmetricKernel,
    bilateral_features,
    positions,
)
from IRNet.instances import cluster, find_centroids, instance_seeds, strongest, upsample_scores
from IRNet.make_ins_seg import pseudo_scores
from IRNet.network import STRIDE, build_network
from IRNet.random_walk import random_walk
from IRNet.train_irn import build_optimizer, train_step


def response_map(height: int, width: int) -> torch.Tensor:
    """Two blobs, float32 (H, W), 0..1."""
    y, x = np.mgrid[:height, :width] / height
    blobs = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.03) for a, b in ((0.4, 0.4), (0.6, 0.9)))
    return torch.from_numpy(blobs / blobs.max()).float()


def crf(setting: Setting) -> Pair:
    """Both label maps of a photo with smooth parts, an object and noise."""
    height, width = setting.photo_size
    response = response_map(height, width)
    y, x = np.mgrid[:height, :width] / height
    photo = 120 + 90 * np.sin(5 * (y + x))[..., None] * [1, 0.5, -1] + 60 * (response.numpy() > 0.5)[..., None]
    photo = (photo + np.random.default_rng(0).normal(0, 8, photo.shape)).clip(0, 255).astype(np.uint8)
    image = torch.from_numpy(photo).to(setting.device)
    labels = torch.stack([response > 0.3, response > 0.1], dim=-1).to(setting.device)
    return Pair(
        lambda: [[DenseCRF(image)(labels)]],
        lambda: [[crf_per_label(image, labels)]],
        unit="photos",
        precision=None,  # the products are sparse
        repeats=3,
    )


def crf_per_label(photo: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For every label map, lattices of its own and the marginals of both labels. Arguments as `IRNet.crf.DenseCRF`."""
    refined = []
    for label in labels.flatten(0, 1).unbind(-1):
        near = SymmetricKernel(positions(*photo.shape[:2], photo.device) / GAUSSIAN_SXY)
        alike = SymmetricKernel(bilateral_features(photo))
        sure, other = -np.log(0.7), -np.log(0.3)
        unary = torch.stack([torch.where(label, other, sure), torch.where(label, sure, other)], dim=-1).float()
        marginals = torch.softmax(-unary, dim=-1)  # (N, 2)
        for _ in range(10):
            messages = GAUSSIAN_WEIGHT * near(marginals) + BILATERAL_WEIGHT * alike(marginals)
            marginals = torch.softmax(messages - unary, dim=-1)
        refined.append(marginals[:, 1])
    return torch.stack(refined, dim=-1).view(labels.shape)


def mask_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    """A response map (H, W); edges (h, w) and the displacements (2, h, w) of two instances at a quarter of its size."""
    h, w = height // 4, width // 4
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    centre = np.where(x < w / 2, w / 4, 3 * w / 4)
    displacement = np.stack([h / 2 - y, centre - x]) * 0.3 + rng.normal(0, 0.05, (2, h, w))
    edge = (np.exp(-np.abs(x - w / 2)) + rng.uniform(0, 0.2, (h, w))).clip(0, 1)
    return response_map(height, width), torch.from_numpy(edge).float(), torch.from_numpy(displacement).float()


def walk(setting: Setting) -> Pair:
    height, width = setting.walk_size
    response, edge, _ = mask_inputs(4 * height, 4 * width)
    scores, edge = response[None, ::4, ::4].to(setting.device), edge.to(setting.device)
    return Pair(
        lambda: [[random_walk(scores, edge)]], lambda: [[dense_walk(scores, edge)]], repeats=1, ours_per_repeat=5
    )


def dense_walk(scores: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """The walk by squaring the dense N x N transition matrix. Arguments as `IRNet.random_walk.random_walk`; float32."""
    height, width = edge.shape
    transition = torch.eye(height * width, device=edge.device)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=edge.device) for n in edge.shape), indexing="ij")
    affinities = pair_affinity(F.pad(edge, (4, 4, 0, 4), value=1), 5, search_offsets(5))  # (34, h, w)
    for (y, x), affinity in zip(search_offsets(5), affinities, strict=True):
        inside = (rows + y < height) & (columns + x >= 0) & (columns + x < width)
        source = (rows * width + columns)[inside]
        target = source + y * width + x
        transition[source, target] = transition[target, source] = affinity[inside]
    transition = transition**10
    transition = transition / transition.sum(dim=0, keepdim=True)
    for _ in range(8):
        transition = transition @ transition
    return ((scores * (1 - edge)).flatten(1) @ transition).view_as(scores)


def pseudo_mask(setting: Setting) -> Pair:
    """A photo's pseudo mask, bool (H, W), from what the network finds in it."""
    response, edge, displacement = (t.to(setting.device) for t in mask_inputs(*setting.masked_photo_size))

    def make(find: Callable, walk: Callable) -> Results:
        instances = cluster(displacement, find(displacement))
        small = F.interpolate(response[None, None], size=edge.shape, mode="bilinear", align_corners=True)[0, 0]
        scores = upsample_scores(walk(instance_seeds(small, instances), edge), response.shape)
        return [[strongest(scores, threshold=0.25).any(dim=0)]]

    straightforward = partial(make, centroids_step_by_step, dense_walk)
    return Pair(partial(make, find_centroids, random_walk), straightforward, repeats=2, ours_per_repeat=3)


def centroids_step_by_step(displacement: torch.Tensor) -> torch.Tensor:
    """Every pixel takes all 300 steps. displacement: float32 (2, h, w). Returns int64 (2, h, w)."""
    field = displacement.cpu().numpy()
    _, height, width = field.shape
    y, x = (grid.astype(np.float32) for grid in np.mgrid[:height, :width])
    for _ in range(300):
        low_y, high_y, low_x, high_x = (f(v).astype(np.int32) for v in (y, x) for f in (np.floor, np.ceil))
        part_y, part_x = y - low_y, x - low_x
        move_y, move_x = (
            field[:, high_y, high_x] * part_y * part_x
            + field[:, high_y, low_x] * part_y * (1 - part_x)
            + field[:, low_y, high_x] * (1 - part_y) * part_x
            + field[:, low_y, low_x] * (1 - part_y) * (1 - part_x)
        )
        y = np.clip((y + move_y).astype(np.float32), 0, height - 1)
        x = np.clip((x + move_x).astype(np.float32), 0, width - 1)
    return torch.from_numpy(np.round(np.stack([y, x])).astype(np.int64)).to(displacement.device)


def irnet_step(setting: Setting) -> Pair:
    """A step of IRNet's training."""
    torch.manual_seed(0)
    network, size = build_network(setting.resnet).to(setting.device).train(), setting.crop_size
    optimizer = build_optimizer(network, learning_rate=0.1, weight_decay=1e-4)
    photos = torch.randn(setting.batch_size, 3, size, size, device=setting.device)
    response = response_map(size // STRIDE, size // STRIDE).to(setting.device)
    label = torch.where(response > 0.3, FOREGROUND, torch.where(response > 0.1, UNKNOWN, BACKGROUND))
    labels = label.to(torch.uint8).repeat(setting.batch_size, 1, 1)

    def step() -> Results:
        return [[loss[None]] for loss in train_step(network, optimizer, 0.0, photos, labels).values()]

    return Pair(step, None, count=setting.batch_size, unit="crops")


def irnet_mask(setting: Setting) -> Pair:
    """A photo's pseudo mask, the network included."""
    torch.manual_seed(0)
    network = build_network(setting.resnet).to(setting.device).eval()
    photo, response = torch.randn(3, *setting.photo_size).to(setting.device), response_map(*setting.photo_size)

    def make() -> Results:
        edge, displacement = network.detect(photo)
        instances = cluster(displacement, find_centroids(displacement))
        (scores,) = pseudo_scores(response[None].to(setting.device), edge, instances, 10, 8)
        return [[strongest(scores, 0.25).any(dim=0)]]

    return Pair(make, None, unit="photos")


ROWS: dict[str, Callable[[Setting], Pair]] = {
    "crf": crf,
    "walk": walk,
    "pseudo_mask": pseudo_mask,
    "irnet_step": irnet_step,
    "irnet_mask": irnet_mask,
}
