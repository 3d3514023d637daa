"""Evaluation of a network of either stage, and export of stage 1's response maps."""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.artifacts import read_mask, write_map, write_scores
from dataset.photos import read_photo
from dataset.references import Split
from dataset.samples import EvalBatch, Target, ground_truth
from model.build import Network
from model.prms import Combine
from model.refine import Cutter, refine
from utils.distributed import all_gather, is_main, shard
from utils.errors import UserError
from utils.maps import Responses, at_photo_size
from utils.memory import return_freed_memory
from utils.metrics import Outcome, evaluate_response

LARGE = 2_000_000  # pixels; pieces of memory that fit the maps of smaller photos are of no use to those of larger ones


@torch.inference_mode()
def responses(
    network: Network,
    loader: Iterable[EvalBatch],
    device: torch.device,
    combine: Combine | None = None,
    title: str | None = "evaluation",
) -> Iterator[tuple[Target, np.ndarray, Responses]]:
    """For each ref: its target, its maps float32 (n, H, W) at the photo's size, and the responses they come from.

    combine: what makes one map for all n sentences of a ref of theirs, such as PRMS. title: of the progress bar; None:
    there is none.
    """
    for batch in tqdm(loader, desc=title, unit="batch", disable=None if title and is_main() else True, leave=False):
        if max(math.prod(target.size) for target in batch.targets) > LARGE:
            return_freed_memory()
        batch = batch.to(device)
        answers = network.respond(batch.images, batch.tokens, batch.photo)
        if combine is not None:
            answers = combine(batch, answers)
        counts = [len(target.reference.sentences) for target in batch.targets]
        of_refs = zip(*(tensor.split(counts) for tensor in answers), strict=True)
        for target, own in zip(batch.targets, map(Responses._make, of_refs), strict=True):
            yield target, at_photo_size(own.maps, target.size).cpu().numpy(), own


def with_masks(
    network: Network,
    found: Iterable[tuple[Target, np.ndarray, Responses]],
    absent_below: float = -math.inf,
    cutter: Cutter | None = None,
) -> Iterator[tuple[Target, np.ndarray, Responses, Iterable[np.ndarray]]]:
    """What `responses` yields, and behind it the masks of the sentences, bool (H, W) each.

    absent_below: sentences whose largest score is below this get an empty mask. cutter: cuts the masks anew, see
    `model.refine`, with all sentences of a photo at hand; without it masks are made one at a time, for a photo may be
    large.
    """

    def masks_of(maps: np.ndarray, answers: Responses) -> Iterator[np.ndarray]:
        for response, peak in zip(maps, answers.peaks.tolist(), strict=True):
            yield (response > network.mask_threshold) & (peak >= absent_below)

    if cutter is None:
        yield from ((target, maps, answers, masks_of(maps, answers)) for target, maps, answers in found)
        return
    for path, of_photo in groupby(found, key=lambda ref: ref[0].path):
        refs = list(of_photo)
        masks = [mask for _, maps, answers in refs for mask in masks_of(maps, answers)]
        if not refs[0][0].fault:
            every = [response for _, maps, _ in refs for response in maps]
            numbers = [number for number, (_, maps, _) in enumerate(refs) for _ in maps]
            masks = refine(cutter, cutter.encode(np.asarray(read_photo(path))), every, masks, numbers)
        rest = iter(masks)
        yield from ((*ref, list(islice(rest, len(ref[1])))) for ref in refs)


def evaluate(
    network: Network,
    loader: DataLoader,
    device: torch.device,
    combine: Combine | None = None,
    map_dir: str | Path | None = None,
    map_format: Literal["full", "native"] = "full",
    title: str = "evaluation",
    absent_below: float = -math.inf,
    cutter: Cutter | None = None,
) -> list[Outcome]:
    """The outcome of every sentence, of all processes, in the order of the refs.

    combine: see `responses`. map_dir: write the map of each ref's first sentence there, at the photo's size
    (`full`) or as the scores that it follows from (`native`). absent_below, cutter: see `with_masks`. A ref that is not
    annotated has no outcome.
    """
    network.eval()
    outcomes: list[Outcome] = []
    found = responses(network, loader, device, combine, title)
    for target, maps, answers, masks in with_masks(network, found, absent_below, cutter):
        if map_dir and map_format == "full":
            write_map(map_dir, target.reference.name, maps[0].clip(0))
        elif map_dir:
            scores = answers.scores[0, 0].cpu().numpy()
            write_scores(map_dir, target.reference.name, scores, answers.maps.shape[-2:], target.size)
        if target.mask is None:
            continue
        of_sentences = zip(maps, answers.peaks.tolist(), masks, strict=True)
        index = target.reference.index
        for sentence, (response, peak, mask) in enumerate(of_sentences):
            outcomes.append(evaluate_response(response, mask, target.mask, target.box, index, sentence, peak))
    return sorted(outcome for share in all_gather(outcomes) for outcome in share)


def suggest_absent_below(network: Network, loader: DataLoader, device: torch.device) -> float:
    """The limit for `absent_below` that 95 % of a loader's sentences reach; they should be true of their photos."""
    network.eval()
    found = responses(network, loader, device, title="absence")
    peaks = all_gather([peak for _, _, answers in found for peak in answers.peaks.tolist()])
    return round(float(np.percentile([peak for share in peaks for peak in share], 5)), 4)


def evaluate_masks(split: Split, folder: str | Path) -> list[Outcome]:
    """The outcome of every sentence with the pseudo masks in `folder` in place of a network's.

    A mask has no maximum, so what the outcomes say about its place means nothing (see `summarise`). UserError for a
    split without masks of its own.
    """
    outcomes: list[Outcome] = []
    for reference in tqdm(shard(split.references), desc="masks", disable=None if is_main() else True, leave=False):
        if reference.segmentation is None or reference.box is None:
            raise UserError(f"split '{split.name}' has no mask for ref {reference.name}: it cannot be evaluated")
        mask = read_mask(folder, reference.name, reference.size)
        truth = ground_truth(split, reference, reference.size)
        outcome = evaluate_response(mask.astype(np.float32), mask, truth, reference.box, reference.index, 0)
        outcomes += [outcome._replace(sentence=sentence) for sentence in range(len(reference.sentences))]
    return sorted(outcome for share in all_gather(outcomes) for outcome in share)
