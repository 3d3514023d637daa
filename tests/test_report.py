"""The metric card: figures and intervals worked out by hand, groups, the page; and the sheet of examples."""

import numpy as np
import pytest
import torch

from dataset.loading import load_splits
from model.examples import TILE, Examples
from tests.golden import REFERENCE
from utils.maps import Responses
from utils.metrics import Outcome, summarise
from utils.pictures import GAP, spread
from utils.report_figures import (
    Sentence,
    chosen_cases,
    differences,
    figures,
    groups,
    photo_numbers,
    speaks_of_position,
    split_report,
)
from utils.report_page import page


def outcome(reference: int, intersection: int, union: int, sentence: int = 0) -> Outcome:
    return Outcome(reference, sentence, intersection, union, True, False, 0.5, True)


def everyone(outcomes: list[Outcome]) -> np.ndarray:
    return np.ones(len(outcomes), dtype=bool)


def test_the_values_are_those_that_validation_prints():
    outcomes = [outcome(0, 2, 2), outcome(1, 1, 4), outcome(2, 3, 7)]
    found = figures(outcomes, np.array([0, 0, 1]), everyone(outcomes))
    assert {name: figure["value"] for name, figure in found.items()} == summarise(outcomes)


def test_the_unit_of_the_bootstrap_is_the_photo():
    """Of two photos with IoU 1 and 0 a quarter of the draws has one of them twice: 0 and 100 are in the interval.

    In one photo the same sentences stand together: there is nothing to draw.
    """
    outcomes = [outcome(0, 4, 4), outcome(1, 0, 4)]
    two = figures(outcomes, np.array([0, 1]), everyone(outcomes))["mIoU"]
    assert two == {"value": 50, "low": 0, "high": 100}
    one = figures(outcomes, np.array([0, 0]), everyone(outcomes))["mIoU"]
    assert one == {"value": 50, "low": 50, "high": 50}


def test_the_interval_has_the_width_of_the_normal_approximation():
    """400 photos of which half hit: 50 % with a standard error of 100 * 0.5 / sqrt(400) = 2.5 points."""
    outcomes = [outcome(i, i % 2, 1) for i in range(400)]
    found = figures(outcomes, np.arange(400), everyone(outcomes))["mIoU"]
    assert (found["low"], found["high"]) == pytest.approx((50 - 1.96 * 2.5, 50 + 1.96 * 2.5), abs=0.6)


def test_a_group_is_drawn_with_all_photos_and_can_be_absent_from_a_draw():
    outcomes = [outcome(0, 1, 1), outcome(1, 1, 2)]
    found = figures(outcomes, np.array([0, 1]), np.array([False, True]))["mIoU"]
    assert found == {"value": 50, "low": 50, "high": 50}
    nobody = figures(outcomes, np.array([0, 1]), np.array([False, False]))["mIoU"]
    assert nobody == {"value": None, "low": None, "high": None}


def test_differences_are_paired():
    """IoU 1 and 1/2 beside 1/2 and 0: whatever photos are drawn, the difference is 50 points."""
    ours, theirs = [outcome(0, 4, 4), outcome(1, 2, 4)], [outcome(0, 2, 4), outcome(1, 0, 4)]
    assert differences(ours, theirs, np.array([0, 1]))["mIoU"] == {"value": 50, "low": 50, "high": 50}


def test_groups_by_hand():
    sentences = [
        Sentence("a", "left man", 0.005, 0),
        Sentence("a", "the man, to the RIGHT of it all now", 0.05, 1),
        Sentence("b", "a man", 0.5, 7),
    ]
    found = {
        title: {name: np.nonzero(m)[0].tolist() for name, m in g.items()} for title, g in groups(sentences).items()
    }
    assert found == {
        "Length of the sentence": {"1-2 words": [0, 2], "6-10 words": [1]},
        "Size of the object, of the photo's area": {"under 1 %": [0], "5-20 %": [1], "20 % or more": [2]},
        "Other refs of the same category in the photo": {"none": [0], "one": [1], "three or more": [2]},
        "Words of position": {"with": [0, 1], "without": [2]},
    }
    assert photo_numbers(sentences).tolist() == [0, 0, 1]
    unknown = groups([sentence._replace(others=None) for sentence in sentences])
    assert unknown["Other refs of the same category in the photo"] == {}


def test_words_of_position_are_whole_words():
    assert speaks_of_position("Leftmost.") and speaks_of_position("the one in the back-left")
    assert not speaks_of_position("a topping of leftovers")


def test_chosen_cases_prefer_first_sentences_of_refs():
    outcomes = [outcome(i // 2, i % 5, 4, sentence=i % 2) for i in range(100)]
    found = chosen_cases(outcomes)
    assert [outcomes[i].iou for i in found["best"]] == [1.0] * 12
    assert {outcomes[i].sentence for i in found["best"][:10]} == {0}
    assert [outcomes[i].iou for i in found["worst"]] == [0.0] * 12
    assert [outcomes[i].iou for i in found["median"]] == [0.5] * 12
    assert chosen_cases(outcomes[:2]) == {"best": [1, 0], "median": [1, 0], "worst": [0, 1]}


def test_the_page_shows_text_as_text_and_fetches_nothing():
    hostile = '<script>alert("1")</script><img src=http://x onerror=1>'
    sentences = [Sentence(hostile, hostile, 0.1, None), Sentence("b", "it's", 0.1, None)]
    found = split_report([outcome(0, 1, 2), outcome(1, 0, 2)], sentences)
    found["differences"] = differences([outcome(0, 1, 2)], [outcome(0, 2, 2)], np.array([0]))
    report = {"title": hostile, "interval": "95 %", "compared_with": hostile, "splits": {hostile: found}}
    html = page(report, {hostile: {0: [b"a", b"b"], 1: [b"c", b"d"]}})
    assert "<script" not in html and "<img src" not in html
    assert "&lt;script&gt;" in html
    assert "it&#x27;s" in html
    assert "url(" not in html and "<link" not in html and 'src="http' not in html
    assert "-50.00" in html


def test_examples_show_sentence_photo_map_mask_and_truth():
    """A network whose response is the left half of every photo: there the map is JET's dark red, else its dark blue."""
    split = load_splits("refcocog", REFERENCE / "refer_fixture", "umd", ["train"])["train"]
    examples = Examples(split, size=32, query_length=20)
    assert len({reference.photo for reference in examples.split.references}) == len(examples.split.references)

    def left_half(batch):
        maps = torch.cat([torch.ones(len(batch.tokens), 1, 32, 16), torch.zeros(len(batch.tokens), 1, 32, 16)], dim=3)
        return Responses(maps, maps)

    sheet = examples.draw(left_half, 0.5, torch.device("cpu"))
    text, photo, heat, mask, truth = (sheet[GAP:, GAP + i * (TILE + GAP) :][:TILE, :TILE] for i in range(5))
    assert 0 < (text == 0).all(axis=2).mean() < 0.2
    here, there = np.s_[20:60, 20:60], np.s_[20:60, 140:180]
    assert np.abs(heat[here] - (0.4 * photo[here] + 0.6 * np.array([128, 0, 0]))).max() <= 1
    assert np.abs(heat[there] - (0.4 * photo[there] + 0.6 * np.array([0, 0, 128]))).max() <= 1
    assert (mask[here] == photo[here]).all() and not (mask[there] == photo[there]).any(axis=2).all()
    assert truth.shape == photo.shape and not (truth == photo).all()


def test_spread():
    assert spread("abcdefgh", 3) == ["a", "c", "f"]
    assert spread("ab", 3) == ["a", "b"]
