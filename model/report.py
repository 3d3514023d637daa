"""The metric card of an evaluation: `report.json`, and `report.html` for people (`validate.py --report`)."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.photos import read_photo
from dataset.references import Split
from dataset.samples import Target, ground_truth
from utils.distributed import gather, is_main
from utils.errors import UserError
from utils.evaluator import OnTarget
from utils.files import read_json, replacing, write_json
from utils.maps import Responses
from utils.metrics import Outcome
from utils.pictures import fit_into, jpeg, mask_overlay
from utils.report_figures import RESAMPLES, Sentence, differences, photo_numbers, split_report
from utils.report_page import page

PICTURE = 320  # pixels, the longer side of a case's pictures


class MetricCard:
    """Collects the splits of an evaluation, beside those of another report where one is named.

    Raises UserError at once where the other report is absent, damaged or of other sentences.
    """

    def __init__(self, folder: str, compare: str | None, splits: dict[str, Split], title: str):
        self.folder, self.compare = Path(folder), compare
        self.other = _read_other(compare, splits) if compare else {}
        self.report: dict[str, Any] = {
            "title": title,
            "interval": f"95 %, bootstrap over photos, {RESAMPLES} resamples",
            "compared_with": compare,
            "splits": {},
        }
        self.pictures: dict[str, dict[int, list[bytes]]] = {}

    def add(
        self,
        split: Split,
        outcomes: list[Outcome],
        threshold: float,
        evaluate_again: Callable[[Split, OnTarget], list[Outcome]],
    ) -> None:
        """Take in a split's outcomes. The chosen cases are evaluated again for their pictures: no map is kept."""
        sentences = sentences_of(split)
        found = split_report(outcomes, sentences)
        if self.compare:
            found["differences"] = differences(outcomes, self.other[split.name], photo_numbers(sentences))
        chosen = {place for places in found["cases"].values() for place in places}
        self.report["splits"][split.name] = found
        self.pictures[split.name] = _draw(split, [outcomes[i] for i in chosen], list(chosen), threshold, evaluate_again)

    def write(self) -> str:
        """Write both files; returns a line that says where they are."""
        if is_main():
            write_json(self.folder / "report.json", self.report)
            with replacing(self.folder / "report.html") as file:
                file.write(page(self.report, self.pictures).encode())
        return f"report: {self.folder / 'report.html'} and report.json"


def sentences_of(split: Split) -> list[Sentence]:
    """What is known of the split's sentences, in the order of their outcomes; every ref has a mask."""
    same = Counter((reference.photo, reference.category) for reference in split.references)
    found = []
    for reference in split.references:
        share = float(ground_truth(split, reference, (reference.height, reference.width)).mean())
        others = None if reference.category is None else same[reference.photo, reference.category] - 1
        found += [Sentence(reference.photo, text, share, others) for text in reference.sentences]
    return found


def _read_other(file: str, splits: dict[str, Split]) -> dict[str, list[Outcome]]:
    """The outcomes in another report, by split; UserError where it is not of the same sentences."""
    cure = "name a report.json that validate.py --report wrote for the same splits"
    content = read_json(file, cure)
    try:
        tables = {name: content["splits"][name]["table"] for name in splits}
        outcomes = {name: [Outcome(*map(float, row)) for row in table["outcome"]] for name, table in tables.items()}
        told = {name: list(zip(table["photo"], table["text"], strict=True)) for name, table in tables.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is no report of {', '.join(splits)} ({type(error).__name__} {error}); {cure}"
        ) from None
    for name, split in splits.items():
        ours = [(reference.photo, text) for reference in split.references for text in reference.sentences]
        if told[name] != ours or len(outcomes[name]) != len(ours):
            raise UserError(f"{file} is of other sentences of the split '{name}' and cannot be compared; {cure}")
    return outcomes


def _draw(
    split: Split,
    cases: Sequence[Outcome],
    places: Sequence[int],
    threshold: float,
    evaluate_again: Callable[[Split, OnTarget], list[Outcome]],
) -> dict[int, list[bytes]]:
    """Place of a case -> its true mask and its prediction over the photo, as JPEG."""
    wanted = {(case.reference, case.sentence): place for case, place in zip(cases, places, strict=True)}
    drawn: dict[int, list[bytes]] = {}

    def draw(target: Target, maps: np.ndarray, _: Responses) -> None:
        for sentence, response in enumerate(maps):
            place = wanted.get((target.reference.index, sentence))
            if place is not None:
                photo = np.array(read_photo(split.photo_path(target.reference)))
                masks = (target.mask, response > threshold)
                drawn[place] = [jpeg(fit_into(mask_overlay(photo, mask), PICTURE)) for mask in masks]

    references = {case.reference for case in cases}
    part = [reference for reference in split.references if reference.index in references]
    evaluate_again(split.part(part), draw)
    return {place: pictures for share in gather(drawn) for place, pictures in share.items()}
