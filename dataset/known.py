"""The data sets that are known, and what belongs to each: one table that everything else reads.

And the folders of the files between the stages, as scripts/run_pipeline.py names them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataset import refcoco, referit
from dataset.jsonl import read_jsonl
from dataset.references import Split, Tell
from utils.errors import UserError

Reader = Callable[[Path, str, Sequence[str], Tell], dict[str, Split]]  # root, split_by, splits, tell
CAM, IR_LABEL, INS_SEG = "cam", "ir_label", "ins_seg"  # dataset/artifacts.py says what is in them
UNSPLIT = "-"  # who split a data set that has one way of it
COCO_CURE = "fetch COCO's train2014.zip (13 GB) again and unpack it into train2014/"


@dataclass(frozen=True)
class DataSet:
    """What belongs to a data set."""

    read: Reader
    photos: str  # their folder, below the data folder
    splits: Mapping[str, Mapping[str, int | None]]  # who split it -> split -> its refs, None where they may be any
    root: str = "./data"  # the data folder, where no other is given
    annotated: bool = True  # every split has masks
    photo_cure: str = COCO_CURE


def _unsplit(read: Callable[[Path, Sequence[str], Tell], dict[str, Split]]) -> Reader:
    return lambda root, _, splits, tell: read(root, splits, tell)


def _refcoco(name: str, splits: Mapping[str, Mapping[str, int | None]]) -> DataSet:
    return DataSet(partial(refcoco.read_refcoco, name), refcoco.PHOTOS, splits)


DATA_SETS = {
    "refcoco": _refcoco("refcoco", {"unc": {"train": 42_404, "val": 3_811, "testA": 1_975, "testB": 1_810}}),
    "refcoco+": _refcoco("refcoco+", {"unc": {"train": 42_278, "val": 3_805, "testA": 1_975, "testB": 1_798}}),
    "refcocog": _refcoco(
        "refcocog",
        {
            "umd": {"train": 42_226, "val": 2_573, "test": 5_023},
            "google": {"train": 44_822, "val": 5_000},
        },
    ),
    "referit": DataSet(
        _unsplit(referit.read_referit),
        referit.PHOTOS,
        {UNSPLIT: {"train": None, "test": None}},
        root="./data/referit",
        photo_cure="fetch ReferIt's images again and unpack them into images/",
    ),
    "jsonl": DataSet(
        _unsplit(read_jsonl),
        ".",
        {UNSPLIT: {"train": None, "val": None}},
        annotated=False,
        photo_cure="correct the paths, or put the photos there",
    ),
}


def known_data_set(name: str) -> DataSet:
    """The data set of this name; UserError where there is none."""
    if name not in DATA_SETS:
        raise UserError(f"there is no data set '{name}'; known are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def known_splits(name: str, split_by: str) -> Mapping[str, int | None]:
    """The splits of a data set with their numbers of refs; UserError for one nobody knows, or that nobody split so."""
    splits = known_data_set(name).splits
    if UNSPLIT in splits:
        return splits[UNSPLIT]
    if split_by not in splits:
        raise UserError(f"{name} is not split by '{split_by}'; use --splitBy {' or '.join(splits)}")
    return splits[split_by]
