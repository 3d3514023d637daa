"""Pictures that people look at without asking: a few refs of a split with a network's maps, or with exported ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from dataset.artifacts import read_map
from dataset.loading import eval_loader
from dataset.photos import read_photo
from dataset.references import Reference, Split
from dataset.samples import EvalPhotos, Target
from model.prms import Predict
from utils.distributed import gather
from utils.evaluator import evaluate
from utils.maps import Responses
from utils.pictures import contact_sheet, fit, heat_overlay, mask_overlay, save_png, text_tile

SHOWN_EACH_EPOCH = 8
SHOWN_OF_EXPORT = 48
TILE = 200  # pixels
Item = TypeVar("Item")


class Examples:
    """The same refs of a split each time, of different photos: sentence, photo, response map, mask, and true mask."""

    def __init__(self, split: Split, size: int, query_length: int):
        firsts = list({reference.photo: reference for reference in reversed(split.references)}.values())[::-1]
        chosen = spread(firsts, SHOWN_EACH_EPOCH)
        annotated = all(reference.segmentation is not None for reference in chosen)
        self.split = Split(split.dataset, split.name, split.image_root, chosen)
        self.photos = EvalPhotos(self.split, size, query_length, masks=annotated)

    def draw(self, predict: Predict, threshold: float, device: torch.device) -> np.ndarray:
        """A contact sheet, uint8 (height, width, 3), the same on every process; all of them must ask."""
        rows: dict[int, list[np.ndarray]] = {}

        def add(target: Target, maps: np.ndarray, _: Responses) -> None:
            photo = np.array(read_photo(self.split.photo_path(target.reference)))
            masks = [maps[0] > threshold] + ([] if target.mask is None else [target.mask])
            pictures = [photo, heat_overlay(photo, maps[0].clip(0)), *(mask_overlay(photo, mask) for mask in masks)]
            text = text_tile(target.reference.sentences[0], TILE)
            rows[target.reference.index] = [text, *(fit(picture, TILE) for picture in pictures)]

        evaluate(predict, eval_loader(self.photos, 1, workers=0), threshold, device, "examples", add)
        everyones = {index: row for share in gather(rows) for index, row in share.items()}
        return contact_sheet([everyones[index] for index in sorted(everyones)], tile=TILE)


def draw_exported(split: Split, folder: str | Path) -> Path:
    """Draw sentences, photo and exported response map of refs spread over the split, beside the folder of the maps."""
    rows = [_exported_row(split, reference, folder) for reference in spread(split.references, SHOWN_OF_EXPORT)]
    path = Path(folder).with_name(f"{Path(folder).name}_{split.name}.png")
    save_png(path, contact_sheet(rows, across=4))
    return path


def _exported_row(split: Split, reference: Reference, folder: str | Path) -> list[np.ndarray]:
    photo = np.array(read_photo(split.photo_path(reference)))
    response = read_map(folder, reference.name)
    return [text_tile("; ".join(reference.sentences), TILE), photo, heat_overlay(photo, response)]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)
