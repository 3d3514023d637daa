"""The metric card's figures: each with a bootstrap interval, by groups of sentences, and beside another evaluation's.

The unit of the bootstrap is the photo: the sentences of a photo, and of a ref, stand or fall together, so intervals
from single sentences would be too narrow. The draws are seeded and the same for every figure and every evaluation of
the same photos, which makes differences paired.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from utils.metrics import Outcome, figure_parts

RESAMPLES = 1000
SEED = 0
SHOWN_CASES = 12
POSITION_WORD = re.compile(  # common English words of place, order and distance
    r"\b(above|back|behind|below|beside|between|bottom|center|centre|close|closest|corner|edge|end|far|farthest|first|front|"
    r"furthest|last|left|leftmost|lower|middle|near|nearest|next|over|right|rightmost|second|side|third|top|under|"
    r"underneath|upper)\b",
    re.IGNORECASE,
)
HISTOGRAM_BINS = 20  # of IoU, each 0.05 wide
WORDS = {"1-2 words": (1, 3), "3-5 words": (3, 6), "6-10 words": (6, 11), "11 words or more": (11, np.inf)}
SHARES = {"under 1 %": (0, 0.01), "1-5 %": (0.01, 0.05), "5-20 %": (0.05, 0.2), "20 % or more": (0.2, np.inf)}
OTHERS = {"none": (0, 1), "one": (1, 2), "two": (2, 3), "three or more": (3, np.inf)}


class Sentence(NamedTuple):
    """What is known of a sentence besides its outcome."""

    photo: str
    text: str
    share: float  # of the photo's area that the true mask covers
    others: int | None  # other refs of the same category in the photo; None where the data names no categories


def split_report(outcomes: Sequence[Outcome], sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Everything that is computed of one split, for JSON, where outcomes become lists; both in the same order."""
    photo = photo_numbers(sentences)
    ious = [outcome.iou for outcome in outcomes]
    return {
        "sentences": len(sentences),
        "photos": int(photo.max()) + 1,
        "figures": figures(outcomes, photo, np.ones(len(outcomes), dtype=bool)),
        "groups": {
            title: {name: figures(outcomes, photo, member) | counts(photo, member) for name, member in group.items()}
            for title, group in groups(sentences).items()
        },
        "histogram": np.histogram(ious, HISTOGRAM_BINS, (0, 1))[0].tolist(),
        "cases": chosen_cases(outcomes),
        "table": {
            "photo": [s.photo for s in sentences],
            "text": [s.text for s in sentences],
            "outcome": list(outcomes),
        },
    }


def photo_numbers(sentences: Sequence[Sentence]) -> np.ndarray:
    """The number of each sentence's photo, int64 (N,), from 0 on."""
    return np.unique([sentence.photo for sentence in sentences], return_inverse=True)[1]


def counts(photo: np.ndarray, member: np.ndarray) -> dict[str, int]:
    """How many sentences and photos a group has."""
    return {"sentences": int(member.sum()), "photos": len(np.unique(photo[member]))}


def figures(outcomes: Sequence[Outcome], photo: np.ndarray, member: np.ndarray) -> dict[str, Any]:
    """The figures, in percent, of the sentences in `member`, bool (N,): name -> value, low, high."""
    values, samples = _resampled(outcomes, photo, member)
    return {name: _with_interval(values[name], samples[name]) for name in values}


def differences(outcomes: Sequence[Outcome], others: Sequence[Outcome], photo: np.ndarray) -> dict[str, Any]:
    """The figures of `outcomes` minus those of `others` for the same sentences, in percent: value, low, high."""
    everything = np.ones(len(outcomes), dtype=bool)
    values, samples = _resampled(outcomes, photo, everything)
    other_values, other_samples = _resampled(others, photo, everything)
    return {
        name: _with_interval(values[name] - other_values[name], samples[name] - other_samples[name]) for name in values
    }


def _resampled(
    outcomes: Sequence[Outcome], photo: np.ndarray, member: np.ndarray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Each figure of a group, and the same of `RESAMPLES` draws of as many photos, with replacement.

    A draw without any sentence of the group gives NaN.
    """
    parts = figure_parts(outcomes)
    photos = int(photo.max()) + 1
    of_photo = np.zeros((2, photos, len(parts)))  # numerators and denominators, summed over each photo's sentences
    for column, pair in enumerate(parts.values()):
        for part, values in enumerate(pair):
            of_photo[part, :, column] = np.bincount(photo, np.where(member, values, 0), photos)
    random = np.random.default_rng(SEED)
    samples = np.empty((RESAMPLES, len(parts)))
    with np.errstate(invalid="ignore"):
        for sample in samples:
            drawn = np.bincount(random.integers(photos, size=photos), minlength=photos)
            top, bottom = drawn @ of_photo
            sample[:] = 100 * top / bottom
        top, bottom = of_photo.sum(axis=1)
        value = 100 * top / bottom
    return dict(zip(parts, value.tolist(), strict=True)), dict(zip(parts, samples.T, strict=True))


def _with_interval(value: float, samples: np.ndarray) -> dict[str, float | None]:
    """The value between the 2.5th and the 97.5th percentile of its resamples; None where there is none."""
    known = samples[np.isfinite(samples)]
    low, high = np.percentile(known, [2.5, 97.5]).tolist() if len(known) else (None, None)
    return {
        name: None if number is None or not np.isfinite(number) else round(number, 4)
        for name, number in (("value", value), ("low", low), ("high", high))
    }


def groups(sentences: Sequence[Sentence]) -> dict[str, dict[str, np.ndarray]]:
    """Title -> name of a group -> its members, bool (N,); groups without a member are left out."""
    words = np.array([len(sentence.text.split()) for sentence in sentences])
    positions = np.array([speaks_of_position(sentence.text) for sentence in sentences])
    others = [sentence.others for sentence in sentences]
    found = {
        "Length of the sentence": _binned(words, WORDS),
        "Size of the object, of the photo's area": _binned(np.array([s.share for s in sentences]), SHARES),
        "Other refs of the same category in the photo": {} if None in others else _binned(np.array(others), OTHERS),
        "Words of position": {"with": positions, "without": ~positions},
    }
    return {title: {name: member for name, member in group.items() if member.any()} for title, group in found.items()}


def _binned(values: np.ndarray, bins: dict[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    return {name: (low <= values) & (values < high) for name, (low, high) in bins.items()}


def speaks_of_position(text: str) -> bool:
    """Whether a sentence has a word of place, order or distance."""
    return bool(POSITION_WORD.search(text))


def chosen_cases(outcomes: Sequence[Outcome]) -> dict[str, list[int]]:
    """Places in `outcomes` of the best, the middle and the worst; among equals the first sentences of refs first."""
    order = sorted(range(len(outcomes)), key=lambda i: (-outcomes[i].iou, outcomes[i].sentence, outcomes[i].reference))
    worst = sorted(order, key=lambda i: outcomes[i].iou)  # stable, so that equals stay in their order
    middle = max(0, (len(order) - SHOWN_CASES) // 2)
    return {
        "best": order[:SHOWN_CASES],
        "median": order[middle : middle + SHOWN_CASES],
        "worst": worst[:SHOWN_CASES],
    }
