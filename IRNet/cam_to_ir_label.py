"""Pass 1: from response maps to the labels that IRNet learns from: sure foreground, sure background, unknown."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN, label_path, write_label
from IRNet.crf import DenseCRF
from IRNet.passes import PhotoWork, read_response


class _Prepared(NamedTuple):
    crf: DenseCRF
    size: tuple[int, int]
    device: torch.device


@dataclass(frozen=True)
class LabelMaker(PhotoWork):
    """Writes `<label_dir>/<name>.png`; thresholds of the response, 0..1: above `foreground`, not above `background`."""

    map_dir: Path
    label_dir: Path
    foreground: float = 0.3
    background: float = 0.1

    def is_finished(self, name: str) -> bool:
        return label_path(self.label_dir, name).is_file()

    def prepare(self, photo: np.ndarray, device: torch.device) -> _Prepared:
        return _Prepared(DenseCRF(torch.from_numpy(photo).to(device)), photo.shape[:2], device)

    def make(self, name: str, prepared: _Prepared) -> bool:
        response = torch.from_numpy(read_response(self.map_dir, name, prepared.size)).to(prepared.device)
        label = ir_label(prepared.crf, response, self.foreground, self.background)
        write_label(self.label_dir, name, label.cpu().numpy())
        return bool((label == FOREGROUND).any())


def ir_label(crf: DenseCRF, response: torch.Tensor, foreground: float, background: float) -> torch.Tensor:
    """uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`. response: float32 (H, W)."""
    labels = torch.stack([response > foreground, response > background], dim=-1)
    sure, possible = (crf(labels) > 0.5).unbind(-1)
    # Kept quirk: the two refinements know nothing of each other; where they disagree, foreground wins.
    label = torch.full_like(sure, UNKNOWN, dtype=torch.uint8)
    label[~sure & ~possible] = BACKGROUND
    label[sure] = FOREGROUND
    return label
