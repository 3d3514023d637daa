"""Pass 3: from response maps to pseudo masks, with the trained network's edges and displacements."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

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
    read_map,
    read_mask,
    write_mask,
)
from dataset.passes import Outcomes, PhotoRefs, fitted, make_files
from dataset.photos import at_size, read_photo
from IRNet.data import Run, map_fingerprint, normalise
from IRNet.instances import (
    cluster,
    connected_parts,
    find_centroids,
    instance_seeds,
    part_at_peak,
    strongest,
    upsample_scores,
)
from IRNet.network import EdgeDisplacement, load_network
from IRNet.random_walk import random_walk
from utils.distributed import all_gather, is_main, shard
from utils.errors import UserError
from utils.files import write_json
from utils.log import log
from utils.pictures import contact_sheet, fit_into, heat_overlay, mask_overlay, optional, save_png, spread
from utils.resume import fingerprint, start_pass

SMALL_PART = 0.01  # of the photo; smaller ones keep their place in the mask and get the score 0
SHOWN, TILE = 48, 120  # refs on the contact sheet; pixels of each picture
LABEL_COLOURS = np.zeros((256, 3), dtype=np.uint8)
LABEL_COLOURS[[BACKGROUND, FOREGROUND, UNKNOWN]] = (30, 30, 30), (255, 255, 255), (128, 128, 160)


@dataclass(frozen=True)
class MaskSettings:
    """What the pseudo masks depend on besides photos, response maps and network, under the names of the flags."""

    beta: float  # the walk, see `random_walk`
    exp_times: int
    ins_seg_bg_thres: float  # foreground where the score exceeds this, 0..1
    save_instances: bool  # too, beside the mask
    part: str  # "all" of a mask, or of its parts the one at the response's "peak"


def make_ins_seg(
    photos: list[PhotoRefs], map_dir: Path, mask_dir: Path, checkpoint: Path, settings: MaskSettings, run: Run
) -> None:
    """Make the pseudo mask of every ref or, to resume, of those that have none."""
    network = load_network(checkpoint).to(run.device)
    made_from = asdict(settings) | {"checkpoint": fingerprint([checkpoint])}
    made_from["response maps"] = map_fingerprint(photos, map_dir)
    names = [name for _, refs in photos for name in refs]
    old = [path(mask_dir, name) for name in names for path in (png_path, instances_path)]
    start_pass(run.work_space / "make_ins_seg.json", made_from, old, run.resume)
    make = partial(make_masks, mask_dir=mask_dir, network=network, settings=settings, device=run.device)
    make_files("make_ins_seg", photos, map_dir, make, partial(png_path, mask_dir), run.device, run.workers)


def make_masks(
    photo: np.ndarray,
    responses: dict[str, np.ndarray],
    size: tuple[int, int],
    mask_dir: Path,
    network: EdgeDisplacement,
    settings: MaskSettings,
    device: torch.device,
) -> Outcomes:
    """Write the pseudo masks of a photo's refs, see `make_files`. network: in evaluation mode, on `device`."""
    edge, displacement = network.detect(torch.from_numpy(normalise(photo)).to(device).movedim(2, 0))
    instances = cluster(displacement, find_centroids(displacement))
    maps = torch.from_numpy(np.stack([*responses.values()])).to(device)
    every_score = pseudo_scores(maps, edge, instances, settings.beta, settings.exp_times)
    for name, scores in zip(responses, every_score, strict=True):
        masks = strongest(scores, settings.ins_seg_bg_thres).cpu().numpy()
        if settings.part == "peak":
            masks &= part_at_peak(masks.any(axis=0), responses[name])
        mask = at_size(masks.any(axis=0), size)
        parts = None
        if settings.save_instances:
            full = ([at_size(one, size) for one in every] for every in (scores.cpu().numpy(), masks))
            parts = connected_parts(*full, SMALL_PART * mask.size)
        write_mask(mask_dir, name, mask, parts)
        yield name, bool(mask.any())


def pseudo_scores(
    responses: torch.Tensor, edge: torch.Tensor, instances: torch.Tensor, beta: float, exp_times: int
) -> Iterator[torch.Tensor]:
    """For each of the responses, how strongly every pixel belongs to every instance that the response touches.

    responses: float32 (R, H, W), at least 0. At stride 4, edge: float32 (h, w), 0..1; instances: int64 (h, w), from 0
    on. Yields R times float32 (K, H, W) with maximum 1, or one map of 0. All walk at once, but only the scores of one
    response are enlarged at a time.
    """
    small = F.interpolate(responses[None], size=edge.shape, mode="bilinear", align_corners=True)[0]
    seeds = [instance_seeds(response, instances) for response in small]
    walked = random_walk(torch.cat(seeds), edge, beta, exp_times)
    for maps in walked.split([len(maps) for maps in seeds]):
        yield upsample_scores(maps, responses.shape[1:]) if len(maps) else torch.zeros_like(responses[:1])


def show_pseudo_masks(
    photos: list[PhotoRefs], map_dir: Path, label_dir: Path | None, mask_dir: Path, work_space: Path
) -> None:
    """Write `pseudo_masks.json`, which counts the masks that exist, and `pseudo_masks.png`, which shows some of them.

    `mean_covered` is the share of a photo that its mask covers, 0..1, on average. The picture has photo, response map,
    IR label (black if there is none) and mask of at most `SHOWN` refs, spread evenly over all. Every process reads its
    part of the masks; the main process writes.
    """
    refs = [(path, name) for path, names in photos for name in names]
    made = [(path, name) for path, name in refs if png_path(mask_dir, name).is_file()]
    shares = [float(read_mask(mask_dir, name).mean()) for _, name in shard(made)]
    shares = sorted(sum(all_gather(shares), []))  # sorted: the number of processes does not show in the mean
    if not is_main():
        return
    mean = round(float(np.mean(shares)), 6) if shares else None
    summary = {"listed": len(refs), "masks": len(made), "empty": shares.count(0), "mean_covered": mean}
    write_json(work_space / "pseudo_masks.json", summary, indent=1)
    rows = []
    for path, name in spread(made, SHOWN):
        try:
            rows.append(draw_row(path, name, map_dir, label_dir, mask_dir))
        except UserError:  # its map or photo was removed or changed since the mask was made
            continue
    picture = work_space / "pseudo_masks.png"
    with optional(picture):
        if rows:
            headings = ["photo", "response map", "IR label", "pseudo mask"]
            save_png(picture, contact_sheet(rows, across=4, tile=TILE, headings=headings))
    log(f"{work_space}/pseudo_masks.json and .png show the pseudo masks")


def draw_row(path: Path, name: str, map_dir: Path, label_dir: Path | None, mask_dir: Path) -> list[np.ndarray]:
    """Photo, response map, IR label and pseudo mask of a ref, each small: uint8 (h, w, 3)."""
    response = read_map(map_dir, name)
    photo = fit_into(fitted(read_photo(path), response.shape), TILE)
    mask = read_mask(mask_dir, name, response.shape)
    label = np.zeros_like(photo)
    if label_dir is not None and png_path(label_dir, name).is_file():
        label = LABEL_COLOURS[at_size(read_label(label_dir, name), photo.shape[:2])]
    return [photo, heat_overlay(photo, response), label, mask_overlay(photo, mask)]
