"""The metric card of an evaluation: `report.json`, and `report.html` for people (`validate.py --report`).

It has each metric with its interval, by groups of sentences, beside another evaluation's. The bootstrap draws photos,
not sentences: the sentences of a photo, and of a ref, are easy or hard together, so intervals from single sentences
would be too narrow. The draws are seeded and the same for every metric and every evaluation of the same photos, which
pairs the differences.
"""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from dataset.photos import read_photo
from dataset.references import Split
from dataset.samples import EvalPhotos, eval_loader, ground_truth
from model.build import Network
from model.evaluation import responses, with_masks
from model.prms import Combine
from model.refine import Cutter
from utils.distributed import all_gather, is_main
from utils.errors import UserError, as_unicode
from utils.files import atomic_write, read_json, write_json
from utils.log import log
from utils.metrics import Outcome, metric_parts
from utils.pictures import fit_into, jpeg, mask_overlay, optional

RESAMPLES = 1000
SHOWN_CASES = 12
SHOWN_LABELS = 10
CASE_TILE = 320  # pixels
POSITION_WORD = re.compile(  # common English words of place, order and distance
    r"\b(above|back|behind|below|beside|between|bottom|center|centre|close|closest|corner|edge|end|far|farthest|first|front|"
    r"furthest|last|left|leftmost|lower|middle|near|nearest|next|over|right|rightmost|second|side|third|top|under|"
    r"underneath|upper)\b",
    re.IGNORECASE,
)
WORDS = {"1-2 words": (1, 3), "3-5 words": (3, 6), "6-10 words": (6, 11), "11 words or more": (11, np.inf)}
SHARES = {"under 1 %": (0, 0.01), "1-5 %": (0.01, 0.05), "5-20 %": (0.05, 0.2), "20 % or more": (0.2, np.inf)}
RIVALS = {"none": (0, 1), "one": (1, 2), "two": (2, 3), "three or more": (3, np.inf)}


def read_comparison(file: str | Path, splits: dict[str, Split]) -> dict[str, list[Outcome]]:
    """The outcomes in another report, by split. UserError where it is absent, damaged or of other sentences."""
    hint = "name a report.json that this version of validate.py --report wrote for the same splits"
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
    """What report.json holds of a split, from the outcomes of all its sentences in order; every ref is annotated.

    Groups, histogram and cases are of the sentences that name something in the photo.

    With `others`, the same sentences' outcomes in another evaluation, it holds the differences too.
    """
    photos = [reference.photo for reference in split.references for _ in reference.sentences]
    number = np.unique(photos, return_inverse=True)[1]  # of each sentence's photo
    draws = draw_photos(number.max() + 1)
    report = {
        "sentences": len(outcomes),
        "photos": len(draws[0]),
        "metrics": metrics_with_intervals(outcomes, number, draws),
        "groups": {
            title: {
                name: metrics_with_intervals([outcomes[i] for i in members], number[members], draws)
                | {"sentences": len(members), "photos": len(np.unique(number[members]))}
                for name, members in group.items()
            }
            for title, group in groups(split).items()
        },
        "histogram": np.histogram([o.iou for o in outcomes if not o.absent], 20, (0, 1))[0].tolist(),
        "cases": choose_cases(outcomes),
        "table": {
            "photo": photos,
            "text": [text for reference in split.references for text in reference.sentences],
            "outcome": list(outcomes),
        },
    }
    if others is not None:
        report["differences"] = metrics_with_intervals(outcomes, number, draws, others)
    return report


def draw_photos(photos: int) -> np.ndarray:
    """How often each photo occurs in each of `RESAMPLES` draws with replacement, float64 (RESAMPLES, photos)."""
    random = np.random.default_rng(0)
    draws = (random.integers(photos, size=photos) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=photos) for draw in draws]).astype(np.float64)


def metrics_with_intervals(
    outcomes: Sequence[Outcome], photo: np.ndarray, draws: np.ndarray, others: Sequence[Outcome] | None = None
) -> dict[str, dict[str, float]]:
    """Each metric of some sentences in percent, with its 95 % interval: name -> value, low, high.

    With `others`, the outcomes of the same sentences in another evaluation, it is the difference to those. photo: int64
    (N,), the number of each sentence's photo. draws: of all photos, so a draw may have none of these sentences.
    """
    # Not scipy.stats.bootstrap: one matrix product resamples a metric here, with the same draws for all metrics and
    # groups, and a draw without any sentence of a group is left out; there it would make the interval NaN.
    weights = np.vstack([np.ones(draws.shape[1]), draws])  # the first row gives the metric itself
    weights = weights[weights @ np.bincount(photo, minlength=draws.shape[1]) > 0]

    def resampled(parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        top, bottom = (weights @ np.bincount(photo, part, draws.shape[1]) for part in parts)
        return 100 * top / np.maximum(bottom, 1)

    metrics = {}
    other_parts = metric_parts(others) if others is not None else {}
    for name, parts in metric_parts(outcomes).items():
        value, *samples = resampled(parts) - (resampled(other_parts[name]) if other_parts else 0)
        low, high = np.percentile(samples, [2.5, 97.5])
        metrics[name] = {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
    return metrics


def groups(split: Split) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name of a group -> the places of its sentences, int64; empty groups and titles are left out."""
    present = split.present().references
    owners = [reference for reference in split.references for _ in reference.sentences]  # of each sentence
    same = Counter((reference.photo, reference.category) for reference in present)
    words, shares, rivals, positions = [], [], [], []  # of each sentence
    for reference in split.references:
        count = len(reference.sentences)
        words += [len(text.split()) for text in reference.sentences]
        shares += [ground_truth(split, reference, reference.size).mean()] * count
        rivals += [same[reference.photo, reference.category] - 1] * count
        positions += [bool(POSITION_WORD.search(text)) for text in reference.sentences]
    categories = all(reference.category is not None for reference in present)
    found = {}
    for title, values, bins in (
        ("Length of the sentence", words, WORDS),
        ("Size of the object, as a share of the photo", shares, SHARES),
        ("Other refs of the same category in the photo", rivals, RIVALS if categories else {}),
        ("Words of position", positions, {"with": (1, 2), "without": (0, 1)}),
    ):
        placed = [(place, value) for place, value in enumerate(values) if not owners[place].absent]
        members = {name: [i for i, v in placed if low <= v < high] for name, (low, high) in bins.items()}
        found[title] = {name: np.array(places) for name, places in members.items() if places}
    found["Frequent categories"] = frequent([[r.category] if isinstance(r.category, str) else [] for r in owners])
    found["Frequent attributes"] = frequent([r.attributes for r in owners])
    return {title: group for title, group in found.items() if group}


def frequent(labels: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """The most frequent of all sentences' labels -> the places of the sentences that have it, int64."""
    counts = Counter(label for own in labels for label in own).most_common(SHOWN_LABELS)
    return {label: np.array([place for place, own in enumerate(labels) if label in own]) for label, _ in counts}


def choose_cases(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    """Places in `outcomes` of the best, the median and the worst; among equals, first sentences of refs come first."""
    present = [place for place, outcome in enumerate(outcomes) if not outcome.absent]
    order = sorted(present, key=lambda i: (-outcomes[i].iou, outcomes[i].sentence, outcomes[i].reference))
    worst = sorted(order, key=lambda i: outcomes[i].iou)  # stable, so equals keep their order
    middle = max(0, (len(order) - SHOWN_CASES) // 2)
    return {
        "best": order[:SHOWN_CASES],
        "median": order[middle : middle + SHOWN_CASES],
        "worst": worst[:SHOWN_CASES],
    }


def draw_cases(
    split: Split,
    outcomes: list[Outcome],
    report: dict[str, Any],
    network: Network,
    device: torch.device,
    combine: Combine | None,
    size: int,
    query_length: int,
    cutter: Cutter | None = None,
) -> dict[int, list[bytes]]:
    """The report's cases, by place in `outcomes`: their true mask and their prediction over the photo, as JPEGs.

    Their refs are evaluated again, since no map was kept. The same on every process; all of them must call it.
    A case that cannot be drawn costs a warning and the process's cases after it.
    """
    chosen = {place for places in report["cases"].values() for place in places}
    place_of = {(outcomes[place].reference, outcomes[place].sentence): place for place in chosen}
    indices = {outcomes[place].reference for place in chosen}
    part = split.part([reference for reference in split.references if reference.index in indices])
    loader = eval_loader(EvalPhotos(part, size, query_length), 1, 0)
    drawn: dict[int, list[bytes]] = {}
    with optional(f"some cases of {split.name}"):  # on every process: the others wait for all pictures
        found = responses(network, loader, device, combine, "pictures")
        for target, _, _, masks in with_masks(network, found, cutter=cutter):
            photo = fit_into(np.array(read_photo(target.path)), CASE_TILE)
            for sentence, mask in enumerate(masks):
                place = place_of.get((target.reference.index, sentence))
                if place is not None:
                    # Emptied, where the evaluation did so by `absent_below`.
                    both = (target.mask, mask & (outcomes[place].predicted > 0))
                    drawn[place] = [jpeg(mask_overlay(photo, one)) for one in both]
    return {place: pictures for part in all_gather(drawn) for place, pictures in part.items()}


def write_report(
    folder: str | Path, title: str, compared_with: str | None, reports: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write report.json into `folder`, on the main process; returns what it holds. `reports`: by split."""
    report = {
        "title": title,
        "interval": f"95 %, bootstrap over photos, {RESAMPLES} resamples",
        "compared_with": compared_with,
        "splits": reports,
    }
    if is_main():
        write_json(Path(folder) / "report.json", report)
    return report


def write_page(folder: str | Path, report: dict[str, Any], pictures: dict[str, dict[int, list[bytes]]]) -> None:
    """Write report.html into `folder`, on the main process. `pictures`: by split, see `draw_cases`."""
    if not is_main():
        return
    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda content: b64encode(content).decode()
    page = environment.get_template("report.html").render(report, pictures=pictures)
    with atomic_write(Path(folder) / "report.html") as file:
        file.write(as_unicode(page).encode())
    log(f"report: {Path(folder) / 'report.html'} and report.json")
