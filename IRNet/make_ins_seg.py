"""Pass 3: from response maps to pseudo masks, with the trained network's edges and displacements."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from dataset.artifacts import instances_path, mask_path, write_instances, write_mask
from IRNet.checkpoint import load_network
from IRNet.images import normalise
from IRNet.instances import Fragment, cluster, find_centroids, fragments, instance_seeds, strongest, upsample_scores
from IRNet.network import EdgeDisplacement
from IRNet.passes import PhotoWork, read_response
from IRNet.walk import random_walk

SMALL_FRAGMENT = 0.01  # of the photo; smaller ones keep their place in the mask and get the score 0


class PhotoStructure(NamedTuple):
    """What the network finds in a photo of H x W pixels, at stride 4."""

    edge: torch.Tensor  # float32 (h, w), 0..1
    instances: torch.Tensor  # int64 (h, w), numbered from 0
    size: tuple[int, int]  # H, W


@dataclass
class MaskMaker(PhotoWork):
    """Writes `<mask_dir>/<name>.png`, and `<name>.json` where instances are wanted; see `pseudo_scores`."""

    map_dir: Path
    mask_dir: Path
    checkpoint: Path
    beta: float = 10
    exp_times: int = 8
    threshold: float = 0.25
    save_instances: bool = False

    @cached_property
    def network(self) -> EdgeDisplacement:
        return load_network(self.checkpoint)

    def is_finished(self, name: str) -> bool:
        paths = [mask_path, instances_path] if self.save_instances else [mask_path]
        return all(path(self.mask_dir, name).is_file() for path in paths)

    def prepare(self, photo: np.ndarray, device: torch.device) -> PhotoStructure:
        return find_structure(self.network.to(device), photo, device)

    def make(self, name: str, prepared: PhotoStructure) -> bool:
        response = read_response(self.map_dir, name, prepared.size)
        scores = pseudo_scores(torch.from_numpy(response).to(prepared.edge.device), prepared, self.beta, self.exp_times)
        masks = strongest(scores, self.threshold)
        mask = masks.any(dim=0).cpu().numpy()
        if self.save_instances:  # before the mask, which says that the ref is finished
            write_instances(self.mask_dir, name, _as_coco(scores, masks))
        instances = int(masks.flatten(1).any(dim=1).sum())
        write_mask(self.mask_dir, name, mask, _facts(mask, response, instances))
        return bool(mask.any())


def find_structure(network: EdgeDisplacement, photo: np.ndarray, device: torch.device) -> PhotoStructure:
    """photo: uint8 (H, W, 3), RGB. device: the network's."""
    edge, displacement = network.detect(torch.from_numpy(normalise(photo)).to(device).permute(2, 0, 1))
    instances = cluster(displacement, find_centroids(displacement))
    return PhotoStructure(edge, torch.from_numpy(instances).to(edge.device), photo.shape[:2])


def pseudo_scores(response: torch.Tensor, structure: PhotoStructure, beta: float, exp_times: int) -> torch.Tensor:
    """How strongly every pixel belongs to every instance that the response touches.

    response: float32 (H, W), at least 0. Returns float32 (K, H, W) with maximum 1, or all 0, or K = 0.
    """
    size = structure.edge.shape
    small = F.interpolate(response[None, None], size=size, mode="bilinear", align_corners=True)[0, 0]
    seeds = instance_seeds(small, structure.instances)
    return upsample_scores(random_walk(seeds, structure.edge, beta, exp_times), structure.size)


def _facts(mask: np.ndarray, response: np.ndarray, instances: int) -> dict[str, float]:
    inside = float(response[mask].mean()) if mask.any() else 0.0
    return {"covered": round(float(mask.mean()), 6), "instances": instances, "mean_response": round(inside, 6)}


def _as_coco(scores: torch.Tensor, masks: torch.Tensor) -> list[dict]:
    smallest = SMALL_FRAGMENT * scores[0].numel() if len(scores) else 0
    return [_fragment_as_coco(part) for part in fragments(scores.cpu().numpy(), masks.cpu().numpy(), smallest)]


def _fragment_as_coco(fragment: Fragment) -> dict:
    run_lengths = coco_mask.encode(np.asfortranarray(fragment.mask.astype(np.uint8)))
    segmentation = {"size": run_lengths["size"], "counts": run_lengths["counts"].decode()}
    return {"segmentation": segmentation, "score": round(fragment.score, 6), "instance": fragment.instance}
