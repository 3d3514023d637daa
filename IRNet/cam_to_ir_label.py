"""Pass 1: from response maps to the labels that IRNet learns from: sure foreground, sure background, unknown."""

import math
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN, png_path, write_label
from dataset.passes import Outcomes, PhotoRefs, make_files
from dataset.photos import at_size
from IRNet.crf import DenseCRF
from IRNet.data import Run, map_fingerprint
from utils.resume import start_pass

PIXELS_AT_A_TIME = 4 * 480 * 640  # maps refined together are faster, because they share a lattice, but take more memory


def cam_to_ir_label(
    photos: list[PhotoRefs], map_dir: Path, label_dir: Path, foreground: float, background: float, run: Run
) -> None:
    """Make the IR label of every ref or, to resume, of those that have none."""
    made_from = {"conf_fg_thres": foreground, "conf_bg_thres": background}
    made_from["response maps"] = map_fingerprint(photos, map_dir)
    old = [png_path(label_dir, name) for _, names in photos for name in names]
    start_pass(run.work_space / "cam_to_ir_label.json", made_from, old, run.resume)
    make = partial(make_labels, label_dir=label_dir, foreground=foreground, background=background, device=run.device)
    make_files("cam_to_ir_label", photos, map_dir, make, partial(png_path, label_dir), run.device, run.workers)


def make_labels(
    photo: np.ndarray,
    responses: dict[str, np.ndarray],
    size: tuple[int, int],
    label_dir: Path,
    foreground: float,
    background: float,
    device: torch.device,
) -> Outcomes:
    """Write the IR labels of a photo's refs, see `make_files`."""
    crf = DenseCRF(torch.from_numpy(photo).to(device))
    at_a_time = max(1, PIXELS_AT_A_TIME // math.prod(photo.shape[:2]))
    groups = torch.from_numpy(np.stack([*responses.values()])).split(at_a_time)
    refined = (ir_labels(crf, maps.to(device), foreground, background).cpu().numpy() for maps in groups)
    for name, label in zip(responses, chain.from_iterable(refined), strict=True):
        write_label(label_dir, name, at_size(label, size))
        yield name, bool((label == FOREGROUND).any())


def ir_labels(crf: DenseCRF, responses: torch.Tensor, foreground: float, background: float) -> torch.Tensor:
    """uint8 (R, H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`. responses: float32 (R, H, W)."""
    labels = torch.stack([responses > foreground, responses > background])  # (2, R, H, W)
    refined = crf(labels.flatten(0, 1).movedim(0, -1)) > 0.5  # (H, W, 2 R)
    sure, possible = refined.movedim(-1, 0).unflatten(0, (2, -1))
    # Kept quirk: the two refinements know nothing of each other; where they disagree, foreground wins.
    label = torch.full_like(sure, UNKNOWN, dtype=torch.uint8)
    label[~sure & ~possible] = BACKGROUND
    label[sure] = FOREGROUND
    return label
