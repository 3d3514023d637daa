"""Pass 3: from response maps to pseudo masks, with the trained network's edges and displacements."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from dataset.artifacts import (
    BACKGROUND,
    FOREGROUND,
    UNKNOWN,
    instances_path,
    label_path,
    mask_path,
    read_label,
    read_mask,
    write_instances,
    write_mask,
)
from dataset.photos import read_photo
from IRNet.data import REFUSALS, PhotoRefs, make_missing, map_files, normalise, read_response
from IRNet.instances import cluster, connected_parts, find_centroids, instance_seeds, strongest, upsample_scores
from IRNet.network import EdgeDisplacement
from IRNet.random_walk import random_walk
from IRNet.resume import fingerprint, start_pass
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
class MaskPhotos(Dataset):
    """The photos of pass 3: reading one makes the pseudo masks of its refs, `<mask_dir>/<name>.png`."""

    photos: list[PhotoRefs]
    network: EdgeDisplacement  # in evaluation mode, on `device`
    map_dir: Path
    mask_dir: Path
    beta: float  # the walk, see `random_walk`
    exp_times: int
    threshold: float  # foreground where the score exceeds this, 0..1
    save_instances: bool  # as `<mask_dir>/<name>.json`, too
    device: torch.device

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, str | Exception]:
        """What became of each ref, see `make_missing`."""
        path, names = self.photos[index]
        try:
            photo = np.asarray(read_photo(path))
            edge, displacement = self.network.detect(torch.from_numpy(normalise(photo)).to(self.device).movedim(2, 0))
            instances = cluster(displacement, find_centroids(displacement))
        except REFUSALS as error:
            return dict.fromkeys(names, error)
        outcomes: dict[str, str | Exception] = {}
        for name in names:
            try:
                response = torch.from_numpy(read_response(self.map_dir, name, photo.shape[:2])).to(self.device)
                scores = pseudo_scores(response, edge, instances, self.beta, self.exp_times)
                masks = strongest(scores, self.threshold)
                mask = masks.any(dim=0).cpu().numpy()
                if self.save_instances:  # before the mask, whose presence means that the ref is finished
                    parts = connected_parts(scores.cpu().numpy(), masks.cpu().numpy(), SMALL_PART * mask.size)
                    write_instances(self.mask_dir, name, parts)
                write_mask(self.mask_dir, name, mask)
                outcomes[name] = "made" if mask.any() else "empty"
            except REFUSALS as error:
                outcomes[name] = error
        return outcomes


def make_pseudo_masks(work: MaskPhotos, checkpoint: Path, work_space: Path, resume: bool, workers: int) -> None:
    """Make the mask of every ref or, to resume, of those that have none. UserError if all were refused.

    checkpoint: where the network came from.
    """
    names = [name for _, refs in work.photos for name in refs]
    made_from = {
        "beta": work.beta,
        "exp_times": work.exp_times,
        "ins_seg_bg_thres": work.threshold,
        "save_instances": work.save_instances,
        "ins_seg_out_dir": str(work.mask_dir.resolve()),
        "response maps": fingerprint(map_files(work.map_dir, names)),
        "checkpoint": fingerprint([checkpoint]),
    }
    old = [path(work.mask_dir, name) for name in names for path in (mask_path, instances_path)]
    start_pass(work_space / "make_ins_seg.json", made_from, old, resume)
    make_missing("make_ins_seg", work, work.mask_dir, workers)


def pseudo_scores(
    response: torch.Tensor, edge: torch.Tensor, instances: torch.Tensor, beta: float, exp_times: int
) -> torch.Tensor:
    """How strongly every pixel belongs to every instance that the response touches.

    response: float32 (H, W), at least 0. At stride 4, edge: float32 (h, w), 0..1; instances: int64 (h, w), from 0 on.
    Returns float32 (K, H, W) with maximum 1, or all 0, or K = 0.
    """
    small = F.interpolate(response[None, None], size=edge.shape, mode="bilinear", align_corners=True)[0, 0]
    return upsample_scores(random_walk(instance_seeds(small, instances), edge, beta, exp_times), response.shape)


def show_pseudo_masks(work: MaskPhotos, label_dir: Path | None, work_space: Path) -> None:
    """Write `pseudo_masks.json`, which counts the masks that exist, and the contact sheet `pseudo_masks.png`.

    Every process reads its part of the masks; the main process writes. `mean_covered` is the share of a photo that its
    mask covers, 0..1, on average.
    """
    refs = [(path, name) for path, names in work.photos for name in names]
    masked = [(path, name) for path, name in refs if mask_path(work.mask_dir, name).is_file()]
    shares = [float(read_mask(work.mask_dir, name).mean()) for _, name in shard(masked)]
    shares = sorted(sum(all_gather(shares), []))  # sorted: the number of processes does not show in the mean
    if is_main():
        mean = round(float(np.mean(shares)), 6) if shares else None
        summary = {"listed": len(refs), "masks": len(masked), "empty": shares.count(0), "mean_covered": mean}
        write_json(work_space / "pseudo_masks.json", summary, indent=1)
        draw_contact_sheet(work_space / "pseudo_masks.png", masked, work.map_dir, label_dir, work.mask_dir)
        log(f"make_ins_seg: {work_space}/pseudo_masks.json and .png show the pseudo masks")


def draw_contact_sheet(
    path: Path, refs: list[tuple[Path, str]], map_dir: Path, label_dir: Path | None, mask_dir: Path
) -> None:
    """Draw photo, response map, IR label (black if there is none) and mask of at most `SHOWN` refs; nothing if none.

    refs: photo and name of each; those shown are spread evenly over them.
    """
    rows = []
    for photo_path, name in spread(refs, SHOWN):
        try:
            photo = np.asarray(read_photo(photo_path))
            response = read_response(map_dir, name, photo.shape[:2])
            mask = read_mask(mask_dir, name, photo.shape[:2])
        except UserError:  # its map or photo was removed or changed since the mask was made
            continue
        label = np.zeros_like(photo)
        if label_dir is not None and label_path(label_dir, name).is_file():
            label = LABEL_COLOURS[read_label(label_dir, name)]
        rows.append([photo, heat_overlay(photo, response), label, mask_overlay(photo, mask)])
    if rows:
        save_png(path, contact_sheet(rows, across=4, headings=["photo", "response map", "IR label", "pseudo mask"]))
