"""Stage 2's targets: the pseudo mask of each ref, as IRNet wrote it."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dataset.artifacts import mask_path, read_mask
from dataset.references import Reference, Split
from dataset.samples import Sample
from utils.errors import UserError


class PseudoMasks:
    """Adds `mask` to a training sample: float32 (1, S, S) of 0 and 1, resized to the nearest pixel.

    Raises UserError where a mask has another size than the annotations say of its photo.
    """

    def __init__(self, folder: str | Path, size: int):
        self.folder, self.size = Path(folder), size

    def __call__(self, sample: Sample, reference: Reference, drawn: int, random: np.random.Generator) -> Sample:
        size = (reference.height, reference.width) if reference.height and reference.width else None
        mask = torch.from_numpy(read_mask(self.folder, reference.name, size).astype(np.float32))
        return sample | {"mask": F.interpolate(mask[None, None], (self.size, self.size), mode="nearest")[0]}


def with_masks(split: Split, folder: str | Path, skip_missing: bool) -> Split:
    """The split's refs that have a pseudo mask; UserError that counts those without one, unless told to skip them.

    A ref keeps its number in the whole split, which its mask is named by.
    """
    missing = [r for r in split.references if not mask_path(folder, r.name).is_file()]
    if missing and not skip_missing:
        names = ", ".join(reference.name for reference in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{len(missing)} of {len(split.references)} refs have no pseudo mask in {folder} ({names}); "
            "make them with scripts/make_pseudo_masks.sh, or train without these refs: --skip_missing"
        )
    gone = {reference.index for reference in missing}
    return split.part([reference for reference in split.references if reference.index not in gone])
