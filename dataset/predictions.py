"""The COCO file of predicted masks, and the parts that it is joined from.

OUTPUT                     `images`, `annotations` and `categories`, see `join_parts` and docs/own_data.md
OUTPUT.parts/predict.json  what the parts were made from
OUTPUT.parts/<first>.jsonl a line for each photo of the batch that begins with photo <first>: its image and annotations
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pycocotools import mask as coco

from dataset.references import Reference
from utils.files import atomic_write

Entry = dict[str, Any]


def parts_folder(output: Path) -> Path:
    """The folder of a file's parts, beside it."""
    return output.with_name(f"{output.name}.parts")


def stamp_path(folder: Path) -> Path:
    """The file that says what the parts were made from."""
    return folder / "predict.json"


def part_files(folder: Path) -> list[Path]:
    """The parts that are there, in the order of the photos."""
    return sorted(folder.glob(f"{'[0-9]' * 8}.jsonl"))


def write_part(folder: Path, first: int, photos: Iterable[tuple[Entry, list[Entry]]]) -> None:
    """Write the part of the batch that begins with photo `first`."""
    with atomic_write(folder / f"{first:08}.jsonl") as file:
        file.writelines(json.dumps(photo).encode() + b"\n" for photo in photos)


def finished_batches(folder: Path) -> set[range]:
    """The numbers of the photos in each part; a batch is finished if it is among these, with no photo missing."""
    counts = {int(file.stem): file.read_bytes().count(b"\n") for file in part_files(folder)}
    return {range(first, first + count) for first, count in counts.items()}


def read_parts(folder: Path) -> Iterator[tuple[Entry, list[Entry]]]:
    """The photos of all parts with their annotations, one at a time."""
    for file in part_files(folder):
        yield from map(json.loads, file.read_bytes().splitlines())


def join_parts(folder: Path, output: Path) -> tuple[int, int]:
    """Write the COCO file, one photo at a time in memory; returns its numbers of photos and masks."""
    with atomic_write(output) as file:
        file.write(b'{"images": [')
        photos = _write_items(file, (image for image, _ in read_parts(folder)))
        file.write(b'],\n"annotations": [')
        masks = _write_items(file, (each for _, annotations in read_parts(folder) for each in annotations))
        file.write(b'],\n"categories": [{"id": 1, "name": "object"}]}\n')
    return photos, masks


def remove_parts(folder: Path) -> None:
    """Remove the parts and, where nobody keeps anything else there, their folder."""
    for file in [*part_files(folder), stamp_path(folder), folder / ".lock"]:
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _write_items(file: BinaryIO, items: Iterable[Any]) -> int:
    count = 0
    for count, item in enumerate(items, start=1):
        file.write((b",\n" if count > 1 else b"\n") + json.dumps(item).encode())
    return count


def image_entry(number: int, reference: Reference, size: tuple[int, int]) -> Entry:
    """Photo `number` of the input, of `size` (H, W), with the data set's id where that is a number."""
    image_id = reference.image_id if isinstance(reference.image_id, int) else number
    return {"id": image_id, "file_name": reference.photo, "width": size[1], "height": size[0]}


def annotation_entry(
    number: int, image: Entry, reference: Reference, sentence: str, runs: Entry, score: float, peak: float
) -> Entry:
    """Mask `number`, in COCO's run lengths, of a ref's sentence. COCO itself has no `peak`, `sentence` and `ref`."""
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": 1,
        "segmentation": runs,
        "bbox": coco.toBbox(runs).tolist(),
        "area": int(coco.area(runs)),
        "iscrowd": 0,
        "score": score,
        "peak": peak,
        "sentence": sentence,
        "ref": reference.ref_id,
    }
