"""The metric card: intervals worked out by hand, groups of sentences, files and page; and sheets of pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dataset.references import ABSENT, Reference, Split
from model.report import (
    choose_cases,
    draw_photos,
    groups,
    metrics_with_intervals,
    read_comparison,
    report_split,
    write_page,
    write_report,
)
from utils.errors import UserError
from utils.metrics import Outcome, summarise
from utils.pictures import GAP, contact_sheet, spread

HOSTILE = '<script>alert("1")</script><img src=http://x onerror=1>'


def outcome(reference, intersection, union, sentence=0):
    return Outcome(reference, sentence, intersection, union, intersection, True, False, 0.5, True)


def mean_iou(outcomes, photo, photos, others=None):
    metric = metrics_with_intervals(outcomes, np.array(photo), draw_photos(photos), others)["mIoU"]
    return metric["value"], metric["low"], metric["high"]


def test_the_values_are_those_that_validation_prints():
    outcomes = [outcome(0, 2, 2), outcome(1, 1, 4), outcome(2, 3, 7), outcome(3, 0, 0)]
    metrics = metrics_with_intervals(outcomes, np.array([0, 0, 1, 1]), draw_photos(2))
    assert {name: metric["value"] for name, metric in metrics.items()} == summarise(outcomes)


def test_intervals_by_hand():
    """Of two photos with IoU 1 and 0, a quarter of the draws has one of them twice, so the interval is 0 to 100."""
    hit, half, miss = outcome(0, 4, 4), outcome(1, 2, 4), outcome(1, 0, 4)
    assert mean_iou([hit, miss], [0, 1], photos=2) == (50, 0, 100)
    assert mean_iou([hit, miss], [0, 0], photos=1) == (50, 50, 50)  # sentences of one photo stay together
    assert mean_iou([half], [1], photos=2) == (50, 50, 50)  # a draw without a sentence of the group is left out
    assert mean_iou([hit, half], [0, 1], 2, others=[half, miss]) == (50, 50, 50)  # differences are paired


def test_the_interval_has_the_width_of_the_normal_approximation():
    """Half of 400 photos are hits: 50 % with a standard error of 100 * 0.5 / sqrt(400) = 2.5 points."""
    _, low, high = mean_iou([outcome(i, i % 2, 1) for i in range(400)], range(400), 400)
    assert (low, high) == pytest.approx((50 - 1.96 * 2.5, 50 + 1.96 * 2.5), abs=0.6)


def test_groups_by_hand(tmp_path):
    def ref(index, photo, text, side, category):
        """A square of `side` pixels in a photo of 20 x 20."""
        square = [[0, 0, side, 0, side, side, 0, side]]
        return Reference(index, index, photo, photo, (20, 20), (text,), (0, 0, side, side), square, category)

    references = [
        ref(0, "a", "left man", 1, 1),
        ref(1, "a", "the man, to the RIGHT of it all now", 5, 2),
        ref(2, "b", "a topping of leftovers", 10, 2),  # position words are whole words
        ref(3, "b", "cup", 10, 2),
    ]
    split = Split("refcocog", "val", tmp_path, references)
    found = {title: {name: list(places) for name, places in group.items()} for title, group in groups(split).items()}
    rivals = "Other refs of the same category in the photo"
    assert found == {
        "Length of the sentence": {"1-2 words": [0, 3], "3-5 words": [2], "6-10 words": [1]},
        "Size of the object, as a share of the photo": {"under 1 %": [0], "5-20 %": [1], "20 % or more": [2, 3]},
        rivals: {"none": [0, 1], "one": [2, 3]},
        "Words of position": {"with": [0, 1], "without": [2, 3]},
    }
    unnamed = split.part([replace(references[0], category=None), *references[1:]])
    assert groups(unnamed).keys() == found.keys() - {rivals}


def test_absent_refs_are_in_no_group_and_no_case(split):
    absent = replace(split.references[1], segmentation=ABSENT, box=None)
    split = split.part([split.references[0], absent, split.references[2]])
    outcomes = [
        outcome(0, 1, 2),
        outcome(0, 0, 2, 1),
        outcome(1, 0, 8)._replace(absent=True, predicted=8),
        outcome(2, 2, 2),
    ]
    report = report_split(split, outcomes)
    assert all(2 not in group for slices in groups(split).values() for group in slices.values())
    assert {place for places in report["cases"].values() for place in places} == {0, 1, 3}
    assert (sum(report["histogram"]), report["metrics"]["N_acc"]["value"]) == (3, 0)
    assert report["metrics"]["cIoU"]["value"] == round(100 * 3 / 14, 4)


def test_frequent_categories_and_attributes_are_groups(split):
    first, second, third = split.references
    named = [
        replace(first, category="cup", attributes=("red", "big")),
        replace(second, category="table"),
        replace(third, category="cup", attributes=("red",)),
    ]
    found = groups(split.part(named))
    labels = {title: {name: list(places) for name, places in found[title].items()} for title in found}
    assert labels["Frequent categories"] == {"cup": [0, 1, 3], "table": [2]}
    assert labels["Frequent attributes"] == {"red": [0, 1, 3], "big": [0, 1]}


def test_cases_prefer_first_sentences_of_refs():
    outcomes = [outcome(i // 2, i % 5, 4, sentence=i % 2) for i in range(100)]
    cases = choose_cases(outcomes)
    ious = {kind: [outcomes[i].iou for i in places] for kind, places in cases.items()}
    assert ious == {"best": [1.0] * 12, "median": [0.5] * 12, "worst": [0.0] * 12}
    assert {outcomes[i].sentence for i in cases["best"][:10]} == {0}
    assert choose_cases(outcomes[:2]) == {"best": [1, 0], "median": [1, 0], "worst": [0, 1]}


@pytest.fixture
def split(tmp_path):
    """Two photos; the first has two refs of the same category."""

    def ref(index, photo, *sentences):
        square = [[0, 0, 4, 0, 4, 4, 0, 4]]  # 16 of 80 pixels
        return Reference(index, index, photo, photo, (8, 10), sentences, (0, 0, 4, 4), square, category=1)

    references = [ref(0, "a.jpg", "it's", HOSTILE), ref(1, "a.jpg", "b"), ref(2, "c.jpg", "d")]
    return Split("refcocog", "val", tmp_path, references)


def test_written_report(split, tmp_path):
    """The page shows text as text and fetches nothing; the differences are to the outcomes read from a report."""
    first = [outcome(0, 1, 2), outcome(0, 0, 2, 1), outcome(1, 1, 2), outcome(2, 2, 2)]
    pictures = {"val": {place: [b"truth", b"prediction"] for place in range(4)}}
    write_report(tmp_path / "a", "first", None, {"val": report_split(split, first)})
    others = read_comparison(tmp_path / "a" / "report.json", {"val": split})["val"]
    assert others == first
    second = report_split(split, [o._replace(intersection=0) for o in first], others)
    write_page(tmp_path / "b", write_report(tmp_path / "b", HOSTILE, "a<b", {"val": second}), pictures)

    report = json.loads((tmp_path / "b" / "report.json").read_text())["splits"]["val"]
    assert (report["sentences"], report["photos"]) == (4, 2)
    assert (report["metrics"]["mIoU"]["value"], report["differences"]["mIoU"]["value"]) == (0, -50)
    assert report["groups"]["Other refs of the same category in the photo"]["one"]["sentences"] == 3
    assert report["groups"]["Size of the object, as a share of the photo"].keys() == {"20 % or more"}
    page = (tmp_path / "b" / "report.html").read_text()
    assert page.startswith("<!doctype html>") and page.count("data:image/jpeg") == 2 * 3 * 4
    assert all(text in page for text in ("-50.00", "&lt;script&gt;", "it&#39;s", "a&lt;b"))
    assert not any(text in page for text in ("<script", "<img src", "url(", "<link", 'src="http'))


ROW = '{"splits": {"val": {"table": {"photo": ["a"], "text": ["b"], "outcome": [[%s, 0, 0, 0, 0, 0, 0, 0, 0]]}}}}'


@pytest.mark.parametrize(
    "content",
    ["[]", "{", None, ROW.replace("%s, ", ""), ROW % '"x"', ROW % ("1" + "0" * 400), ROW % ("1" + "0" * 5000)],
)
def test_a_report_that_cannot_be_compared_is_one_line(content, split, tmp_path):
    if content:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match="report.json.*name a report.json") as refusal:
        read_comparison(tmp_path / "report.json", {"val": split})
    assert "\n" not in str(refusal.value)


def test_a_report_of_other_sentences_cannot_be_compared(split, tmp_path):
    write_report(tmp_path, "", None, {"val": report_split(split, [outcome(0, 1, 2)] * 4)})
    with pytest.raises(UserError, match="other sentences in the split 'val'"):
        read_comparison(tmp_path / "report.json", {"val": split.part(split.references[:2])})


def test_headings_stand_above_their_columns():
    rows = [[np.full((30, 60, 3), 10 * row + column, dtype=np.uint8) for column in range(2)] for row in range(3)]
    plain, headed = contact_sheet(rows, 2, 60), contact_sheet(rows, 2, 60, headings=["photo", "mask"])
    line = len(headed) - len(plain) + GAP
    assert line > GAP and (headed[line:] == plain[GAP:]).all()
    ink = headed[:line].min(axis=(0, 2)) < 128  # of each column of pixels
    lefts = [GAP, 60 + 2 * GAP, 2 * (60 + GAP) + 4 * GAP, 3 * (60 + GAP) + 4 * GAP]
    assert all(ink[left : left + 60].any() for left in lefts)


def test_spread():
    assert spread("abcdefgh", 3) == ["a", "c", "f"]
    assert spread("ab", 3) == ["a", "b"]
