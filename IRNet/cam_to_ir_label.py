"""Pass 1: from response maps to the labels that IRNet learns from: sure foreground, sure background, unknown."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.artifacts import BACKGROUND, FOREGROUND, UNKNOWN, label_path, write_label
from dataset.photos import read_photo
from IRNet.crf import DenseCRF
from IRNet.data import REFUSALS, PhotoRefs, make_missing, map_files, read_response
from IRNet.resume import fingerprint, start_pass


@dataclass
class LabelPhotos(Dataset):
    """The photos of pass 1: reading one makes the IR labels of its refs, `<label_dir>/<name>.png`."""

    photos: list[PhotoRefs]
    map_dir: Path
    label_dir: Path
    foreground: float  # a response above this is sure foreground, 0..1
    background: float  # one not above this is sure background, 0..1
    device: torch.device

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, str | Exception]:
        """What became of each ref, see `make_missing`."""
        path, names = self.photos[index]
        try:
            photo = torch.from_numpy(np.array(read_photo(path))).to(self.device)
            crf = DenseCRF(photo)
        except REFUSALS as error:
            return dict.fromkeys(names, error)
        outcomes: dict[str, str | Exception] = {}
        for name in names:
            try:
                response = torch.from_numpy(read_response(self.map_dir, name, tuple(photo.shape[:2])))
                label = ir_label(crf, response.to(self.device), self.foreground, self.background)
                write_label(self.label_dir, name, label.cpu().numpy())
                outcomes[name] = "made" if (label == FOREGROUND).any() else "empty"
            except REFUSALS as error:
                outcomes[name] = error
        return outcomes


def make_ir_labels(work: LabelPhotos, work_space: Path, resume: bool, workers: int) -> None:
    """Make the IR label of every ref or, to resume, of those that have none. UserError if all were refused."""
    names = [name for _, refs in work.photos for name in refs]
    made_from = {
        "conf_fg_thres": work.foreground,
        "conf_bg_thres": work.background,
        "ir_label_out_dir": str(work.label_dir.resolve()),
        "response maps": fingerprint(map_files(work.map_dir, names)),
    }
    old = [label_path(work.label_dir, name) for name in names]
    start_pass(work_space / "cam_to_ir_label.json", made_from, old, resume)
    make_missing("cam_to_ir_label", work, work.label_dir, workers)


def ir_label(crf: DenseCRF, response: torch.Tensor, foreground: float, background: float) -> torch.Tensor:
    """uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`. response: float32 (H, W)."""
    labels = torch.stack([response > foreground, response > background], dim=-1)
    sure, possible = (crf(labels) > 0.5).unbind(-1)
    # Kept quirk: the two refinements know nothing of each other; where they disagree, foreground wins.
    label = torch.full_like(sure, UNKNOWN, dtype=torch.uint8)
    label[~sure & ~possible] = BACKGROUND
    label[sure] = FOREGROUND
    return label
