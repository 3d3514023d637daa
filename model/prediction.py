"""Masks of many photos, each with its own sentences: the loop behind predict.py."""

import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.artifacts import write_mask
from dataset.masks import rasterise, run_lengths
from dataset.photos import read_photo
from dataset.predictions import Entry, annotation_entry, image_entry, read_parts, write_part
from dataset.samples import EvalBatch, Target
from model.build import Network
from model.evaluation import responses, with_masks
from model.refine import Cutter
from model.segmenter import Segmenter
from utils.distributed import is_main, usable_cores
from utils.errors import one_line
from utils.maps import enlarged
from utils.pictures import contact_sheet, fit_into, mask_overlay, spread, text_tile

MOST_THREADS = 8  # each holds a batch
TILE, AT_EACH_END, BETWEEN = 160, 8, 16  # of the sheet: pixels; masks
Found = tuple[Target, list[tuple[Entry, float, float]]]  # a ref; run lengths, score and peak of each sentence


def segment_many(
    network: Network,
    batches: Iterable[EvalBatch],
    device: torch.device,
    absent_below: float = -math.inf,
    cutter: Cutter | None = None,
) -> Iterator[list[Found]]:
    """The masks of each batch, ref by ref, with their scores, see `score`, and peaks, see `Responses.peaks`.

    absent_below, cutter: see `with_masks`.

    On a CPU batches are computed side by side, each by one thread: a network's last bits depend on the number of its
    threads, and so the masks depend neither on the machine's cores nor on the number of processes.
    """
    threads = min(MOST_THREADS, usable_cores()) if device.type == "cpu" else 1
    waiting: deque[Future[list[Found]]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for batch in batches:
            waiting.append(pool.submit(segment_batch, network, batch, device, absent_below, cutter))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def segment_batch(
    network: Network, batch: EvalBatch, device: torch.device, absent_below: float, cutter: Cutter | None
) -> list[Found]:
    """The masks of a batch, ref by ref, with their scores and peaks."""
    found = []
    answered = responses(network, [batch], device, title=None)
    for target, maps, answers, masks in with_masks(network, answered, absent_below, cutter):
        of_sentences = zip(maps, answers.maps, answers.peaks.tolist(), masks, strict=True)
        entries = [
            (run_lengths(mask), score(network, response, answer, mask), round(peak, 4))
            for response, answer, peak, mask in of_sentences
        ]
        found.append((target, entries))
    return found


def score(network: Network, response: np.ndarray, answer: torch.Tensor, mask: np.ndarray) -> float:
    """How sure a network is of a mask, 0 to 1: the mean inside it of the response or, of stage 2, the logit's sigmoid.

    response, mask: (H, W), at the photo's size. answer: (1, S, S), what the response comes from. To four digits; 0 for
    an empty mask.
    """
    if not mask.any():
        return 0.0
    if network.stage == 2:
        response = enlarged(answer[None], mask.shape)[0].sigmoid().cpu().numpy()
    return round(float(response[mask].mean(dtype=np.float64)), 4)


def predict(
    segmenter: Segmenter,
    loader: DataLoader,
    parts: Path,
    mask_dir: Path | None,
    keep_empty: bool,
    absent_below: float = -math.inf,
) -> None:
    """Write a part for each batch of the loader; a photo that cannot be read is named and left out.

    mask_dir: where each mask also goes as a PNG: that of a ref's first sentence is named as a pseudo mask, the others
    have the number of their sentence behind that name. keep_empty: a mask without foreground has an annotation, too.
    absent_below, and the cutter of the segmenter: see `with_masks`.
    """
    photos, batches = loader.dataset.photos, loader.batch_sampler
    counts = (sum(len(reference.sentences) for reference in refs) for refs in photos)
    first_ids = list(accumulate(counts, initial=1))  # of each photo's annotations
    with tqdm(total=sum(map(len, batches)), unit="photo", disable=None if is_main() else True) as bar:
        masks = segment_many(segmenter.network, loader, segmenter.device, absent_below, segmenter.cutter)
        for numbers, found in zip(batches, masks, strict=True):
            refs, entries = iter(found), []
            for number in numbers:
                of_photo = list(islice(refs, len(photos[number])))
                if fault := of_photo[0][0].fault:
                    tqdm.write(f"skipped: {one_line(fault)}", file=sys.stderr)
                    continue
                entries.append(photo_entries(number, first_ids[number], of_photo, keep_empty))
                if mask_dir:
                    write_masks(mask_dir, of_photo)
            write_part(parts, numbers[0], entries)
            bar.update(len(numbers))


def photo_entries(number: int, first_id: int, found: list[Found], keep_empty: bool) -> tuple[Entry, list[Entry]]:
    """COCO's entries of a photo: its image and the annotations, which are numbered from `first_id` on."""
    image = image_entry(number, found[0][0].reference, found[0][0].size)
    masks = [
        (target.reference, sentence, *mask)
        for target, of_ref in found
        for sentence, mask in zip(target.reference.sentences, of_ref, strict=True)
    ]
    entries = [annotation_entry(first_id + place, image, *mask) for place, mask in enumerate(masks)]
    return image, [entry for entry in entries if keep_empty or entry["area"]]


def write_masks(folder: Path, found: list[Found]) -> None:
    """Write the masks of a photo as PNGs, the empty ones among them."""
    for target, masks in found:
        for number, (runs, _, _) in enumerate(masks, start=1):
            name = f"{target.reference.name}_{number}" if number > 1 else target.reference.name
            write_mask(folder, name, rasterise(runs, *target.size))


def draw_sheet(image_root: Path, parts: Path) -> np.ndarray:
    """The masks with the lowest scores, some at even intervals of rank, those with the highest; uint8 (H, W, 3)."""
    scores = np.array([entry["score"] for _, entries in read_parts(parts) for entry in entries])
    ranked = np.argsort(scores, kind="stable").tolist()
    middle = spread(ranked[AT_EACH_END:-AT_EACH_END], BETWEEN)
    chosen = [*ranked[:AT_EACH_END], *middle, *ranked[AT_EACH_END:][-AT_EACH_END:]]
    rows: dict[int, list[np.ndarray]] = dict.fromkeys(chosen, [])
    pairs = ((image, entry) for image, entries in read_parts(parts) for entry in entries)
    rows |= {place: sheet_row(image_root, *pair) for place, pair in enumerate(pairs) if place in rows}
    return contact_sheet(list(rows.values()), across=4, tile=TILE, headings=["score, sentence", "photo", "mask"])


def sheet_row(image_root: Path, image: Entry, entry: Entry) -> list[np.ndarray]:
    """Score and sentence, the photo and the mask, uint8 (H, W, 3) each."""
    photo = fit_into(np.array(read_photo(image_root / image["file_name"])), TILE)
    mask = rasterise(entry["segmentation"], image["height"], image["width"])
    return [text_tile(f"{entry['score']:.3f} {entry['sentence']}", TILE), photo, mask_overlay(photo, mask)]
