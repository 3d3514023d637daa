"""The metric card of an evaluation: `report.json`, and `report.html` for people (`validate.py --report`)."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.photos import read_photo
from dataset.references import Split
from dataset.samples import EvalPhotos, eval_loader, ground_truth
from model.build import Network
from model.evaluation import responses
from model.scorer import Scorer
from utils.distributed import all_gather, is_main
from utils.errors import UserError
from utils.files import atomic_write, read_json, write_json
from utils.log import log
from utils.metrics import Outcome
from utils.pictures import fit_into, jpeg, mask_overlay
from utils.report import RESAMPLES, Sentence, render_page, summarise_split


def read_comparison(file: str | Path, splits: dict[str, Split]) -> dict[str, list[Outcome]]:
    """The outcomes in another report, by split. UserError where it is absent, damaged or of other sentences."""
    hint = "name a report.json that validate.py --report wrote for the same splits"
    content = read_json(file, hint)
    outcomes = {}
    for name, split in splits.items():
        try:
            table = content["splits"][name]["table"]
            outcomes[name] = [Outcome(*map(float, row)) for row in table["outcome"]]
            found = [row[:2] for row in zip(table["photo"], table["text"], table["outcome"], strict=True)]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            words = f"{file} has no usable table of the split '{name}' ({type(error).__name__}: {error})"
            raise UserError(f"{words}; {hint}") from None
        expected = [(reference.photo, text) for reference in split.references for text in reference.sentences]
        if found != expected:
            raise UserError(f"{file} has other sentences in the split '{name}' and cannot be compared; {hint}")
    return outcomes


def report_split(split: Split, outcomes: list[Outcome], others: list[Outcome] | None = None) -> dict[str, Any]:
    """What report.json holds of a split, from the outcomes of all its sentences in order; every ref has a mask.

    With `others`, the same sentences' outcomes in another evaluation, it holds the differences too.
    """
    same = Counter((reference.photo, reference.category) for reference in split.references)
    sentences = []
    for reference in split.references:
        share = float(ground_truth(split, reference, (reference.height, reference.width)).mean())
        rivals = None if reference.category is None else same[reference.photo, reference.category] - 1
        sentences += [Sentence(reference.photo, text, share, rivals) for text in reference.sentences]
    return summarise_split(outcomes, sentences, others)


def draw_cases(
    split: Split,
    outcomes: list[Outcome],
    report: dict[str, Any],
    network: Network,
    device: torch.device,
    scorer: Scorer | None,
    size: int,
    query_length: int,
) -> dict[int, list[bytes]]:
    """The report's cases, by place in `outcomes`: their true mask and their prediction over the photo, as JPEGs.

    Their refs are evaluated again, since no map was kept. The same on every process; all of them must call it.
    """
    chosen = {place for places in report["cases"].values() for place in places}
    place_of = {(outcomes[place].reference, outcomes[place].sentence): place for place in chosen}
    indices = {outcomes[place].reference for place in chosen}
    part = split.part([reference for reference in split.references if reference.index in indices])
    loader = eval_loader(EvalPhotos(part, size, query_length), 1, 0)
    drawn: dict[int, list[bytes]] = {}
    for target, maps, _ in responses(network, loader, device, scorer, "pictures"):
        photo = np.array(read_photo(split.photo_path(target.reference)))
        for sentence, response in enumerate(maps):
            place = place_of.get((target.reference.index, sentence))
            if place is not None:
                masks = (target.mask, response > network.mask_threshold)
                drawn[place] = [jpeg(fit_into(mask_overlay(photo, mask), 320)) for mask in masks]
    return {place: pictures for part in all_gather(drawn) for place, pictures in part.items()}


def write_report(
    folder: str | Path,
    title: str,
    compared_with: str | None,
    reports: dict[str, dict[str, Any]],
    pictures: dict[str, dict[int, list[bytes]]],
) -> None:
    """Write report.json and report.html into `folder`, on the main process; `reports` and `pictures` are by split."""
    if not is_main():
        return
    report = {
        "title": title,
        "interval": f"95 %, bootstrap over photos, {RESAMPLES} resamples",
        "compared_with": compared_with,
        "splits": reports,
    }
    write_json(Path(folder) / "report.json", report)
    with atomic_write(Path(folder) / "report.html") as file:
        file.write(render_page(report, pictures).encode())
    log(f"report: {Path(folder) / 'report.html'} and report.json")
