"""Contact sheets: what a network makes of a few refs after each epoch, and the response maps that were exported.

Photos are fitted to their tiles first: 48 of 12 megapixels would take gigabytes.
"""

from pathlib import Path

import numpy as np
import torch

from dataset.artifacts import read_map
from dataset.photos import read_photo
from dataset.references import Reference, Split
from dataset.samples import ground_truth
from model.segmenter import Segmenter
from utils.pictures import contact_sheet, fit_into, heat_overlay, mask_overlay, save_png, spread, text_tile

EXAMPLE_TILE, MAP_TILE = 200, 120  # pixels


def draw_examples(split: Split, network: torch.nn.Module, size: int, query_length: int) -> np.ndarray:
    """Eight refs of different photos, spread evenly over the split, the same each time; uint8 (H, W, 3).

    A row per ref: first sentence, photo, response map, mask and, where all have one, the true mask.
    """
    segmenter = Segmenter(network, size, query_length, next(network.parameters()).device)
    first_of_photo: dict[str, Reference] = {}
    for reference in split.references:
        first_of_photo.setdefault(reference.photo, reference)
    references = spread(list(first_of_photo.values()), 8)
    annotated = all(reference.segmentation is not None for reference in references)
    rows = []
    for reference in references:
        photo = read_photo(split.photo_path(reference))
        response = segmenter.respond(photo, reference.sentences[:1])[0]
        masks = [response > network.mask_threshold]
        if annotated:
            masks.append(ground_truth(split, reference, reference.size))
        text, small = text_tile(reference.sentences[0], EXAMPLE_TILE), fit_into(np.array(photo), EXAMPLE_TILE)
        rows.append([text, small, heat_overlay(small, response), *(mask_overlay(small, mask) for mask in masks)])
    headings = ["sentence", "photo", "response map", "mask", *(["true mask"] if annotated else [])]
    return contact_sheet(rows, tile=EXAMPLE_TILE, headings=headings)


def draw_maps(split: Split, folder: str | Path) -> Path:
    """Draw sentences, photo and exported map of refs spread over the split, as a PNG beside the folder of maps."""
    rows = []
    for reference in spread(split.references, 48):
        photo = fit_into(np.array(read_photo(split.photo_path(reference))), MAP_TILE)
        text = text_tile("; ".join(reference.sentences), MAP_TILE)
        rows.append([text, photo, heat_overlay(photo, read_map(folder, reference.name))])
    path = Path(folder).resolve()
    path = path.with_name(f"{path.name}_{split.name}.png")
    save_png(path, contact_sheet(rows, across=4, tile=MAP_TILE, headings=["sentences", "photo", "response map"]))
    return path
