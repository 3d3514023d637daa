"""Pass 3: from response maps to pseudo masks, with the trained network's edges and displacements."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dataset.artifacts import (
    BACKGROUND,
    FOREGROUND,
    UNKNOWN,
    instances_path,
    png_path,
    read_label,
    read_mask,
    write_mask,
)
from dataset.photos import read_photo
from IRNet.data import FilePass, normalise, read_response
from IRNet.instances import cluster, connected_parts, find_centroids, instance_seeds, strongest, upsample_scores
from IRNet.network import EdgeDisplacement
from IRNet.random_walk import random_walk
from IRNet.resume import fingerprint
from utils.distributed import all_gather, is_main, shard
from utils.errors import UserError
from utils.files import write_json
from utils.log import log
from utils.pictures import contact_sheet, heat_overlay, mask_overlay, save_png, spread

SMALL_PART = 0.01  # of the photo; smaller ones keep their place in the mask and get the score 0
SHOWN = 48  # refs on the contact sheet
LABEL_COLOURS = np.zeros((256, 3), dtype=np.uint8)
LABEL_COLOURS[[BACKGROUND, FOREGROUND, UNKNOWN]] = (30, 30, 30), (255, 255, 255), (128, 128, 160)


@dataclass
class MaskPass(FilePass):
    """Makes the pseudo mask of every ref."""

    checkpoint: Path  # where the network came from
    network: EdgeDisplacement  # in evaluation mode, on `device`
    beta: float  # the walk, see `random_walk`
    exp_times: int
    threshold: float  # foreground where the score exceeds this, 0..1
    save_instances: bool  # too, beside the mask

    title = "make_ins_seg"
    paths = (png_path, instances_path)

    def settings(self) -> dict[str, Any]:
        return {
            "beta": self.beta,
            "exp_times": self.exp_times,
            "ins_seg_bg_thres": self.threshold,
            "save_instances": self.save_instances,
            "ins_seg_out_dir": str(self.folder.resolve()),
            "checkpoint": fingerprint([self.checkpoint]),
        }

    def prepare(self, photo: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges, float32 (h, w), and instances, int64 (h, w), at stride 4."""
        edge, displacement = self.network.detect(torch.from_numpy(normalise(photo)).to(self.device).movedim(2, 0))
        return edge, cluster(displacement, find_centroids(displacement))

    def make(self, structure: tuple[torch.Tensor, torch.Tensor], response: torch.Tensor, name: str) -> bool:
        scores = pseudo_scores(response, *structure, self.beta, self.exp_times)
        masks = strongest(scores, self.threshold)
        mask = masks.any(dim=0).cpu().numpy()
        parts = None
        if self.save_instances:
            parts = connected_parts(scores.cpu().numpy(), masks.cpu().numpy(), SMALL_PART * mask.size)
        write_mask(self.folder, name, mask, parts)
        return bool(mask.any())


def pseudo_scores(
    response: torch.Tensor, edge: torch.Tensor, instances: torch.Tensor, beta: float, exp_times: int
) -> torch.Tensor:
    """How strongly every pixel belongs to every instance that the response touches.

    response: float32 (H, W), at least 0. At stride 4, edge: float32 (h, w), 0..1; instances: int64 (h, w), from 0 on.
    Returns float32 (K, H, W) with maximum 1, or one map of 0.
    """
    small = F.interpolate(response[None, None], size=edge.shape, mode="bilinear", align_corners=True)[0, 0]
    seeds = instance_seeds(small, instances)
    if not len(seeds):
        return torch.zeros_like(response)[None]
    return upsample_scores(random_walk(seeds, edge, beta, exp_times), response.shape)


def show_pseudo_masks(masks: MaskPass, label_dir: Path | None, work_space: Path) -> None:
    """Write `pseudo_masks.json`, which counts the masks that exist, and `pseudo_masks.png`, which shows some of them.

    `mean_covered` is the share of a photo that its mask covers, 0..1, on average. The picture has photo, response map,
    IR label (black if there is none) and mask of at most `SHOWN` refs, spread evenly over all. Every process reads its
    part of the masks; the main process writes.
    """
    refs = [(path, name) for path, names in masks.photos for name in names]
    made = [(path, name) for path, name in refs if png_path(masks.folder, name).is_file()]
    shares = [float(read_mask(masks.folder, name).mean()) for _, name in shard(made)]
    shares = sorted(sum(all_gather(shares), []))  # sorted: the number of processes does not show in the mean
    if not is_main():
        return
    mean = round(float(np.mean(shares)), 6) if shares else None
    summary = {"listed": len(refs), "masks": len(made), "empty": shares.count(0), "mean_covered": mean}
    write_json(work_space / "pseudo_masks.json", summary, indent=1)
    rows = []
    for path, name in spread(made, SHOWN):
        try:
            photo = np.asarray(read_photo(path))
            response = read_response(masks.map_dir, name, photo.shape[:2])
            mask = read_mask(masks.folder, name, photo.shape[:2])
        except UserError:  # its map or photo was removed or changed since the mask was made
            continue
        label = np.zeros_like(photo)
        if label_dir is not None and png_path(label_dir, name).is_file():
            label = LABEL_COLOURS[read_label(label_dir, name)]
        rows.append([photo, heat_overlay(photo, response), label, mask_overlay(photo, mask)])
    if rows:
        sheet = contact_sheet(rows, across=4, headings=["photo", "response map", "IR label", "pseudo mask"])
        save_png(work_space / "pseudo_masks.png", sheet)
    log(f"make_ins_seg: {work_space}/pseudo_masks.json and .png show the pseudo masks")
