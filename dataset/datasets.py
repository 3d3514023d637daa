"""The table of data sets. A new one is a reader and an entry here; everything else reads the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataset import phrasecut, refcoco, referit
from dataset.jsonl import read_jsonl
from dataset.references import Split
from utils.errors import UserError

UNSPLIT = "-"  # stands for --splitBy where a data set is split in one way only


@dataclass(frozen=True)
class DataSet:
    """What a script needs to know about a data set."""

    read: Callable[[Path, str, Sequence[str]], dict[str, Split]]  # from root, split_by and the names of the splits
    splits: Mapping[str, Mapping[str, int | None]]  # split_by -> split -> published number of refs, None: any
    photos: str = refcoco.PHOTOS  # the folder of photos, below the data folder
    root: str = "./data"  # the default data folder
    annotated: bool = True  # every ref has a mask
    photo_hint: str = "fetch the photos with: bash scripts/download_data.sh coco"


DATA_SETS = {
    "refcoco": DataSet(
        partial(refcoco.read_refcoco, "refcoco"),
        {"unc": {"train": 42_404, "val": 3_811, "testA": 1_975, "testB": 1_810}},
    ),
    "refcoco+": DataSet(
        partial(refcoco.read_refcoco, "refcoco+"),
        {"unc": {"train": 42_278, "val": 3_805, "testA": 1_975, "testB": 1_798}},
    ),
    "refcocog": DataSet(
        partial(refcoco.read_refcoco, "refcocog"),
        {"umd": {"train": 42_226, "val": 2_573, "test": 5_023}, "google": {"train": 44_822, "val": 5_000}},
    ),
    "grefcoco": DataSet(
        partial(refcoco.read_refcoco, "grefcoco", files=("grefs({}).json", "grefs({}).p")),
        {"unc": {"train": None, "val": None, "testA": None, "testB": None}},
    ),
    "ref-zom": DataSet(
        partial(refcoco.read_refcoco, "ref-zom", photos="."),
        {"final": {"train": None, "test": None}},
        photos=".",
        photo_hint="fetch the photos with: bash scripts/download_data.sh coco coco-val",
    ),
    "phrasecut": DataSet(
        lambda root, _, splits: {split: phrasecut.read_phrasecut(root, split) for split in splits},
        {UNSPLIT: {"train": None, "val": 20_316, "test": None, "miniv": 821}},
        photos=phrasecut.PHOTOS,
        photo_hint="fetch the photos, see data/README.md",
    ),
    "referit": DataSet(
        lambda root, _, splits: {split: referit.read_referit(root, split) for split in splits},
        {UNSPLIT: {"train": None, "test": None}},
        photos=referit.PHOTOS,
        root="./data/referit",
        photo_hint="fetch the photos with: bash scripts/download_data.sh referit",
    ),
    "jsonl": DataSet(
        lambda root, _, splits: {split: read_jsonl(root / f"{split}.jsonl") for split in splits},
        {UNSPLIT: {"train": None, "val": None}},
        photos=".",
        annotated=False,
        photo_hint="correct the paths, or put the photos there",
    ),
}


def known_splits(name: str, split_by: str) -> Mapping[str, int | None]:
    """The splits of a data set with their published numbers of refs; UserError for an unknown name or `split_by`."""
    if name not in DATA_SETS:
        raise UserError(f"there is no data set '{name}'; choose one of {', '.join(DATA_SETS)}")
    splits = DATA_SETS[name].splits
    if UNSPLIT in splits:
        return splits[UNSPLIT]
    if split_by not in splits:
        raise UserError(f"{name} is not split by '{split_by}'; use --splitBy {' or '.join(splits)}")
    return splits[split_by]


def load_splits(dataset: str, root: str | Path, split_by: str, splits: Sequence[str]) -> dict[str, Split]:
    """The named splits of a data set, each once; UserError for anything that is not there or cannot be used."""
    known_splits(dataset, split_by)
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"the data folder {root} is not there; see data/README.md, or run: bash scripts/quickstart.sh")
    return DATA_SETS[dataset].read(root, split_by, list(dict.fromkeys(splits)))
