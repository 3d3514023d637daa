"""The metric card: metrics with bootstrap intervals, by groups of sentences, beside another evaluation's; as a page.

The bootstrap draws photos, not sentences: the sentences of a photo, and of a ref, are easy or hard together, so
intervals from single sentences would be too narrow. The draws are seeded and the same for every metric and every
evaluation of the same photos, which pairs the differences.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from utils.metrics import Outcome, metric_parts

RESAMPLES = 1000
SHOWN_CASES = 12
POSITION_WORD = re.compile(  # common English words of place, order and distance
    r"\b(above|back|behind|below|beside|between|bottom|center|centre|close|closest|corner|edge|end|far|farthest|first|front|"
    r"furthest|last|left|leftmost|lower|middle|near|nearest|next|over|right|rightmost|second|side|third|top|under|"
    r"underneath|upper)\b",
    re.IGNORECASE,
)
WORDS = {"1-2 words": (1, 3), "3-5 words": (3, 6), "6-10 words": (6, 11), "11 words or more": (11, np.inf)}
SHARES = {"under 1 %": (0, 0.01), "1-5 %": (0.01, 0.05), "5-20 %": (0.05, 0.2), "20 % or more": (0.2, np.inf)}
RIVALS = {"none": (0, 1), "one": (1, 2), "two": (2, 3), "three or more": (3, np.inf)}


class Sentence(NamedTuple):
    """What is known of a sentence besides its outcome."""

    photo: str
    text: str
    share: float  # of the photo's area that the true mask covers, 0..1
    rivals: int | None  # other refs of the same category in the photo; None where the data name no categories


def summarise_split(
    outcomes: Sequence[Outcome], sentences: Sequence[Sentence], others: Sequence[Outcome] | None = None
) -> dict[str, Any]:
    """What report.json holds of a split. `sentences` are those of `outcomes`, and of `others`, in the same order."""
    photo = np.unique([sentence.photo for sentence in sentences], return_inverse=True)[1]
    draws = draw_photos(photo.max() + 1)
    report = {
        "sentences": len(sentences),
        "photos": len(draws[0]),
        "metrics": metrics_with_intervals(outcomes, photo, draws),
        "groups": {
            title: {
                name: metrics_with_intervals([outcomes[i] for i in members], photo[members], draws)
                | {"sentences": len(members), "photos": len(np.unique(photo[members]))}
                for name, members in group.items()
            }
            for title, group in groups(sentences).items()
        },
        "histogram": np.histogram([outcome.iou for outcome in outcomes], 20, (0, 1))[0].tolist(),
        "cases": choose_cases(outcomes),
        "table": {
            "photo": [sentence.photo for sentence in sentences],
            "text": [sentence.text for sentence in sentences],
            "outcome": list(outcomes),
        },
    }
    if others is not None:
        report["differences"] = metrics_with_intervals(outcomes, photo, draws, others)
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


def groups(sentences: Sequence[Sentence]) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name of a group -> the places of its sentences, int64; empty groups and titles are left out."""

    def binned(values: Sequence[float], bins: dict[str, tuple[float, float]]) -> dict[str, np.ndarray]:
        return {name: (low <= np.array(values)) & (np.array(values) < high) for name, (low, high) in bins.items()}

    rivals = [sentence.rivals for sentence in sentences]
    positions = np.array([bool(POSITION_WORD.search(sentence.text)) for sentence in sentences])
    members = {
        "Length of the sentence": binned([len(sentence.text.split()) for sentence in sentences], WORDS),
        "Size of the object, as a share of the photo": binned([sentence.share for sentence in sentences], SHARES),
        "Other refs of the same category in the photo": {} if None in rivals else binned(rivals, RIVALS),
        "Words of position": {"with": positions, "without": ~positions},
    }
    return {
        title: {name: np.flatnonzero(member) for name, member in group.items() if member.any()}
        for title, group in members.items()
        if group
    }


def choose_cases(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    """Places in `outcomes` of the best, the median and the worst; among equals, first sentences of refs come first."""
    order = sorted(range(len(outcomes)), key=lambda i: (-outcomes[i].iou, outcomes[i].sentence, outcomes[i].reference))
    worst = sorted(order, key=lambda i: outcomes[i].iou)  # stable, so equals keep their order
    middle = max(0, (len(order) - SHOWN_CASES) // 2)
    return {
        "best": order[:SHOWN_CASES],
        "median": order[middle : middle + SHOWN_CASES],
        "worst": worst[:SHOWN_CASES],
    }


def render_page(report: dict[str, Any], pictures: dict[str, dict[int, list[bytes]]]) -> str:
    """The page of a report; `pictures`: split -> place of a case -> JPEGs of its true mask and its prediction."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda content: b64encode(content).decode()
    return environment.get_template("report.html").render(report, pictures=pictures)
