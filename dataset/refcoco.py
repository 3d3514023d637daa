"""RefCOCO, RefCOCO+ and RefCOCOg from the files as they are on disk: `instances.json` and `refs(<split by>).p`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataset.checks import checked_id, checked_photo, checked_sentences, checked_size, require_unique
from dataset.references import Reference, Split, Tell, strict
from dataset.unpickle import read_pickle
from utils.errors import UserError, reason, shown

PHOTOS = "train2014"  # the folder of photos, below the data folder
DOWNLOAD = "put the refer annotations there (data/README.md shows the tree)"


def read_refcoco(
    dataset: str, root: Path, split_by: str, splits: Sequence[str], tell: Tell = strict
) -> dict[str, Split]:
    """The splits asked for. Raises UserError for an absent, damaged or inconsistent file and an unknown split.

    tell: is handed the error of each ref that cannot be used, which is then left out.
    """
    folder = root / "refer" / dataset
    file = folder / f"refs({split_by}).p"
    refs = read_pickle(file, DOWNLOAD)
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise UserError(f"{file} is no list of refs; {DOWNLOAD}")
    try:
        chosen = {split: [ref for ref in refs if _belongs(ref["split"], split)] for split in splits}
        _require_refs(chosen, sorted({ref["split"] for ref in refs}), file)
        wanted = {ref["ann_id"] for part in chosen.values() for ref in part}
        require_unique((ref["ref_id"] for ref in refs), "ref_id", str(file))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: a ref without a usable {reason(error)}; {DOWNLOAD}") from None
    images, annotations = _read_instances(folder / "instances.json", wanted)

    def references(part: list[dict]) -> Iterator[Reference]:
        for index, ref in enumerate(part):
            try:
                yield _reference(index, ref, images, annotations, file)
            except UserError as error:
                tell(error)

    return {split: Split(dataset, split, root / PHOTOS, list(references(part))) for split, part in chosen.items()}


def _belongs(marked: str, split: str) -> bool:
    """`testA`: the mark has the letter A behind test; `test`: the mark contains test."""
    if split.startswith("test") and len(split) > len("test"):
        return "test" in marked and split[-1] in marked.split("test", 1)[1]
    return marked == split or (split == "test" and "test" in marked)


def _require_refs(chosen: dict[str, list], known: list[str], file: Path) -> None:
    for split, refs in chosen.items():
        if not refs:
            raise UserError(f"{file} has no split '{split}'; it has {', '.join(known[:10])}")


def _read_instances(file: Path, wanted: set[int]) -> tuple[dict[int, dict], dict[int, dict]]:
    """Images and annotations by id. Annotations that no ref names are dropped while the file is parsed."""

    def slim(entry: dict[str, Any]) -> dict[str, Any] | None:
        return None if "segmentation" in entry and entry.get("id") not in wanted else entry

    try:
        with file.open(encoding="utf-8") as text:
            content = json.load(text, object_hook=slim)
        images, annotations = content["images"], [a for a in content["annotations"] if a is not None]
        require_unique((image["id"] for image in images), "image", str(file))
        require_unique((annotation["id"] for annotation in annotations), "annotation", str(file))
        return {image["id"]: image for image in images}, {a["id"]: a for a in annotations}
    except FileNotFoundError:
        raise UserError(f"{file} is not there; {DOWNLOAD}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file} is no COCO annotation file ({type(error).__name__}: {reason(error)}); {DOWNLOAD}"
        ) from None


def _reference(index: int, ref: dict, images: dict[int, dict], annotations: dict[int, dict], file: Path) -> Reference:
    where = f"{file}: ref {shown(ref['ref_id'])}"
    try:
        image, annotation = images.get(ref["image_id"]), annotations.get(ref["ann_id"])
        if image is None or annotation is None:
            missing = f"image {shown(ref['image_id'])}" if image is None else f"annotation {shown(ref['ann_id'])}"
            instances = file.parent / "instances.json"
            raise UserError(f"{where} names {missing}, which {instances} does not have; {DOWNLOAD}")
        require_unique((entry["sent_id"] for entry in ref["sentences"]), "sentence", where)
        x, y, w, h = (int(value) for value in annotation["bbox"])  # kept quirk: cut to integers before adding
        if isinstance(annotation["segmentation"], str):
            raise ValueError("a segmentation that is a path")  # which own data may name, below their folder
        height, width = checked_size(image["height"], image["width"], where)
        return Reference(
            index=index,
            ref_id=checked_id(ref["ref_id"], "ref_id", where),
            image_id=checked_id(ref["image_id"], "image_id", where),
            photo=checked_photo(image["file_name"], where),
            height=height,
            width=width,
            sentences=checked_sentences([entry["sent"] for entry in ref["sentences"]], where),
            box=(x, y, x + w, y + h),
            segmentation=annotation["segmentation"],
            category=ref.get("category_id"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"{type(error).__name__}: {reason(error)}"
        raise UserError(f"{where} or its annotation is damaged ({problem}); {DOWNLOAD}") from None
