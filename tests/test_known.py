"""The table of data sets: what it says is what the readers do, and what the pipeline asks for."""

import json
from types import SimpleNamespace

import pytest

from dataset.known import DATA_SETS, known_data_set, known_splits
from dataset.loading import DATASETS, load_splits
from scripts.run_pipeline import _chosen, steps
from utils.errors import UserError


@pytest.mark.parametrize(("name", "split_by", "folder"), [("refcocog", "umd", "."), ("referit", "-", "referit")])
def test_the_photos_are_where_the_table_says(name, split_by, folder, world):
    split = load_splits(name, world / folder, split_by, ["train"])["train"]
    assert split.image_root == world / folder / DATA_SETS[name].photos
    assert (split.dataset, split.photo_path(split.references[0]).is_file()) == (name, True)


def test_your_own_photos_are_beside_the_lines(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"image": "a.jpg", "sentences": ["a"]}))
    split = load_splits("jsonl", tmp_path, "unc", ["train"])["train"]
    assert split.image_root.samefile(tmp_path / DATA_SETS["jsonl"].photos)


def test_an_unknown_data_set_is_named(tmp_path):
    words = "there is no data set 'coco'; known are refcoco, refcoco[+], refcocog, referit, jsonl"
    for ask in (lambda: load_splits("coco", tmp_path, "unc", ["val"]), lambda: known_data_set("coco")):
        with pytest.raises(UserError, match=words):
            ask()


def test_who_split_it():
    assert tuple(DATA_SETS) == DATASETS
    assert known_splits("refcocog", "umd") == {"train": 42_226, "val": 2_573, "test": 5_023}
    assert list(known_splits("referit", "unc")) == ["train", "test"]  # the flag's default makes no difference
    with pytest.raises(UserError, match="refcocog is not split by 'unc'; use --splitBy umd or google"):
        known_splits("refcocog", "unc")


EVALUATED = {  # data set and who split it -> splits of the last step, the split that the best checkpoint is chosen on
    ("refcoco", "unc"): ("val,testA,testB", "val"),
    ("refcoco+", "unc"): ("val,testA,testB", "val"),
    ("refcocog", "umd"): ("val,test", "val"),
    ("refcocog", "google"): ("val", "val"),
    ("referit", "-"): ("test", "none"),
    ("jsonl", "-"): ("val", "val"),
}


def word_after(flag, command):
    return command[command.index(flag) + 1]


@pytest.mark.parametrize(("words", "expected"), EVALUATED.items())
def test_the_pipeline_evaluates_every_split_but_train(words, expected, tmp_path):
    dataset, split_by = words
    flags = dict.fromkeys(("common", "stage1", "irnet", "stage2"), "")
    args = SimpleNamespace(
        dataset=dataset, split_by=split_by, data_root=None, splits=None, only=None, scorer="S=x", **flags
    )
    command = {step.name: step.command for step in _chosen(steps(args, tmp_path), args)}
    assert word_after("--test_split", command["stage2"]) == expected[0]
    assert word_after("--test_split", command["train_stage2"]) == expected[1]
    assert word_after("--refer_data_root", command["stage2"]) == DATA_SETS[dataset].root
    asked = {name for name, words in command.items() if words[-2:] == ["--scorer", "S=x"]}
    assert asked == {"train_stage1", "stage1_prms_train"}
    assert ("stage1_train" in command) == DATA_SETS[dataset].annotated
