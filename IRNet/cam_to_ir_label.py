"""Pass 1: from response maps to the labels that IRNet learns from: sure foreground, sure background, unknown."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN, png_path, write_label
from IRNet.crf import DenseCRF
from IRNet.data import FilePass


@dataclass
class LabelPass(FilePass):
    """Makes the IR label of every ref."""

    foreground: float  # a response above this is sure foreground, 0..1
    background: float  # one not above this is sure background, 0..1

    title = "cam_to_ir_label"
    paths = (png_path,)

    def settings(self) -> dict[str, Any]:
        thresholds = {"conf_fg_thres": self.foreground, "conf_bg_thres": self.background}
        return thresholds | {"ir_label_out_dir": str(self.folder.resolve())}

    def prepare(self, photo: np.ndarray) -> DenseCRF:
        return DenseCRF(torch.from_numpy(photo).to(self.device))

    def make(self, crf: DenseCRF, response: torch.Tensor, name: str) -> bool:
        label = ir_label(crf, response, self.foreground, self.background).cpu().numpy()
        write_label(self.folder, name, label)
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
