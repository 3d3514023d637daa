"""RefCOCO, RefCOCO+ and RefCOCOg from the files as they are on disk: `instances.json` and `refs(<split by>).p`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.references import Reference, Split, checked_photo, checked_sentence
from dataset.unpickle import read_pickle
from utils.errors import UserError

SPLIT_BY = {"refcoco": ("unc",), "refcoco+": ("unc",), "refcocog": ("umd", "google")}
DOWNLOAD = "put the refer annotations there (data/README.md shows the tree)"


def read_refcoco(root: Path, dataset: str, split_by: str, splits: Sequence[str]) -> dict[str, Split]:
    """The splits asked for. Raises UserError for an absent, damaged or inconsistent file and an unknown split."""
    if split_by not in SPLIT_BY[dataset]:
        raise UserError(f"{dataset} is not split by '{split_by}'; use --splitBy {' or '.join(SPLIT_BY[dataset])}")
    folder = root / "refer" / dataset
    file = folder / f"refs({split_by}).p"
    refs = read_pickle(file, DOWNLOAD)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise UserError(f"{file} is no list of refs; {DOWNLOAD}")
    try:
        chosen = {split: [ref for ref in refs if _belongs(ref["split"], split)] for split in splits}
        _require_refs(chosen, sorted({ref["split"] for ref in refs}), file)
        wanted = {ref["ann_id"] for part in chosen.values() for ref in part}
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: a ref without a usable {error}; {DOWNLOAD}") from None
    images, annotations = _read_instances(folder / "instances.json", wanted)
    image_root = root / "train2014"
    return {
        split: Split(
            dataset, split, image_root, [_reference(i, r, images, annotations, file) for i, r in enumerate(part)]
        )
        for split, part in chosen.items()
    }


def _belongs(marked: str, split: str) -> bool:
    """`testA`: the mark has the letter A behind test; `test`: the mark contains test."""
    if split.startswith("test") and len(split) > len("test"):
        return "test" in marked and split[-1] in marked.split("test", 1)[1]
    return marked == split or (split == "test" and "test" in marked)


def _require_refs(chosen: dict[str, list], known: list[str], file: Path) -> None:
    for split, refs in chosen.items():
        if not refs:
            raise UserError(f"{file} has no split '{split}'; it has {', '.join(known)}")


def _read_instances(file: Path, wanted: set[int]) -> tuple[dict[int, dict], dict[int, dict]]:
    """Images and annotations by id. Annotations that no ref names are dropped while the file is parsed."""

    def slim(entry: dict[str, Any]) -> dict[str, Any] | None:
        return None if "segmentation" in entry and entry.get("id") not in wanted else entry

    try:
        with file.open(encoding="utf-8") as text:
            content = json.load(text, object_hook=slim)
        images = {image["id"]: image for image in content["images"]}
        return images, {a["id"]: a for a in content["annotations"] if a is not None}
    except FileNotFoundError:
        raise UserError(f"{file} is not there; {DOWNLOAD}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is no COCO annotation file ({type(error).__name__}: {error}); {DOWNLOAD}") from None


def _reference(index: int, ref: dict, images: dict[int, dict], annotations: dict[int, dict], file: Path) -> Reference:
    where = f"{file}: ref {ref.get('ref_id')}"
    image, annotation = images.get(ref.get("image_id")), annotations.get(ref["ann_id"])
    if image is None or annotation is None:
        missing = f"image {ref.get('image_id')}" if image is None else f"annotation {ref['ann_id']}"
        raise UserError(f"{where} names {missing}, which {file.parent / 'instances.json'} does not have; {DOWNLOAD}")
    try:
        x, y, w, h = (int(value) for value in annotation["bbox"])  # kept quirk: cut to integers before adding
        return Reference(
            index=index,
            ref_id=ref["ref_id"],
            image_id=ref["image_id"],
            photo=checked_photo(image["file_name"], where),
            height=int(image["height"]),
            width=int(image["width"]),
            sentences=tuple(checked_sentence(entry["sent"], where) for entry in ref["sentences"]),
            box=(x, y, x + w, y + h),
            segmentation=annotation["segmentation"],
            category=ref.get("category_id"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} or its annotation is damaged ({type(error).__name__}: {error}); {DOWNLOAD}") from None
