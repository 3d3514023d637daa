"""Export of a split's response maps: a file for each ref, the list of their names, and a picture of some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dataset.artifacts import names_path, read_map, write_map, write_names, write_scores
from dataset.photos import read_photo
from dataset.references import Reference, Split
from dataset.samples import Target
from utils.distributed import is_main
from utils.evaluator import OnTarget
from utils.log import say
from utils.maps import Responses
from utils.pictures import contact_sheet, heat_overlay, save_png, spread, text_tile

SHOWN = 48
TILE = 120  # pixels


@dataclass(frozen=True)
class MapExport:
    """Where response maps and the list of their names go; None: not written.

    `cam_format`: `full`, maps at the size of the photo, or `native`, the scores of stage 1 that they follow from.
    """

    map_dir: str | None
    names_dir: str | None
    cam_format: Literal["full", "native"]

    @property
    def on_target(self) -> OnTarget | None:
        """What the evaluator is to do with each ref's maps."""
        return self._write if self.map_dir else None

    def _write(self, target: Target, maps: np.ndarray, responses: Responses) -> None:
        """Saves the map of a ref's first sentence; with PRMS all its sentences have the same."""
        name = target.reference.name
        if self.cam_format == "full":
            write_map(self.map_dir, name, maps[0].clip(0))
        else:
            scores, input_size = responses.scores[0, 0].cpu().numpy(), responses.maps.shape[-2:]
            write_scores(self.map_dir, name, scores, input_size, target.size)

    def finish(self, split: Split) -> None:
        """Write the list of names and the picture, when all maps of the split are there."""
        if self.names_dir and is_main():
            photos = {reference.name: reference.photo for reference in split.references}
            write_names(names_path(self.names_dir, split.dataset, split.name), photos)
        if self.map_dir and is_main():
            say(f"response maps: {self.map_dir}, some of them in {draw_maps(split, self.map_dir)}")


def draw_maps(split: Split, folder: str | Path) -> Path:
    """Draw sentences, photo and exported map of refs spread over the split, beside the folder of the maps."""
    rows = [_row(split, reference, folder) for reference in spread(split.references, SHOWN)]
    path = Path(folder).with_name(f"{Path(folder).name}_{split.name}.png")
    save_png(path, contact_sheet(rows, across=4, tile=TILE))
    return path


def _row(split: Split, reference: Reference, folder: str | Path) -> Sequence[np.ndarray]:
    photo = np.array(read_photo(split.photo_path(reference)))
    text = text_tile("; ".join(reference.sentences), TILE)
    return text, photo, heat_overlay(photo, read_map(folder, reference.name))
