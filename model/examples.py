"""The picture of a training: a few refs of a split with the maps of the network as it stands."""

import numpy as np
import torch

from dataset.loading import eval_loader
from dataset.photos import read_photo
from dataset.references import Reference, Split
from dataset.samples import EvalPhotos, Target
from model.predict import Predict
from utils.distributed import gather
from utils.evaluator import evaluate
from utils.maps import Responses
from utils.pictures import contact_sheet, fit_into, heat_overlay, mask_overlay, spread, text_tile

SHOWN = 8
TILE = 200  # pixels


class Examples:
    """The same refs of a split each time, of different photos: sentence, photo, response map, mask, and true mask."""

    def __init__(self, split: Split, size: int, query_length: int):
        firsts: dict[str, Reference] = {}
        for reference in split.references:
            firsts.setdefault(reference.photo, reference)
        chosen = spread(list(firsts.values()), SHOWN)
        annotated = all(reference.segmentation is not None for reference in chosen)
        self.split = split.part(chosen)
        self.photos = EvalPhotos(self.split, size, query_length, masks=annotated)

    def draw(self, predict: Predict, threshold: float, device: torch.device) -> np.ndarray:
        """A contact sheet, uint8 (height, width, 3), the same on every process; all of them must ask."""
        rows: dict[int, list[np.ndarray]] = {}

        def add(target: Target, maps: np.ndarray, _: Responses) -> None:
            photo = np.array(read_photo(self.split.photo_path(target.reference)))
            masks = [maps[0] > threshold] + ([] if target.mask is None else [target.mask])
            pictures = [photo, heat_overlay(photo, maps[0]), *(mask_overlay(photo, mask) for mask in masks)]
            text = text_tile(target.reference.sentences[0], TILE)
            rows[target.reference.index] = [text, *(fit_into(picture, TILE) for picture in pictures)]

        evaluate(predict, eval_loader(self.photos, 1, workers=0), threshold, device, "examples", add)
        everyones = {index: row for share in gather(rows) for index, row in share.items()}
        return contact_sheet([everyones[index] for index in sorted(everyones)], tile=TILE)
