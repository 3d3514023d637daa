"""RefCOCO, RefCOCO+ and RefCOCOg as they are distributed: `instances.json` and `refs(<split by>).p`.

gRefCOCO and Ref-ZOM come in nearly the same files. Where a ref of theirs names several objects, `ann_id` is a list.
Where it names none that is there, gRefCOCO's `ann_id` is [-1] and Ref-ZOM's `source` is "zero", whatever its `ann_id`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.checks import checked_name, checked_path, checked_sentences
from dataset.references import ABSENT, Reference, Split
from dataset.unpickle import read_pickle
from utils.errors import UserError, reason, shown
from utils.files import from_utf8, read_json

PHOTOS = "train2014"  # the folder of photos, below the data folder
DOWNLOAD = "fetch the annotations, see data/README.md"


def read_refcoco(
    dataset: str,
    root: Path,
    split_by: str,
    splits: Sequence[str],
    files: Sequence[str] = ("refs({}).p",),
    photos: str = PHOTOS,
) -> dict[str, Split]:
    """The splits asked for; UserError for an absent, damaged or inconsistent file and for an unknown split.

    files: what the file of refs may be called, JSON or a pickle; the first one that is there is read. photos: their
    folder below the data folder, or "." where those of train2014 and of val2014 are used.
    """
    candidates = [root / "refer" / dataset / name.format(split_by) for name in files]
    file = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    refs = (read_json if file.suffix == ".json" else read_pickle)(file, DOWNLOAD)
    try:
        chosen = {split: [ref for ref in refs if _belongs(ref["split"], split)] for split in splits}
        wanted = {ann_id for part in chosen.values() for ref in part for ann_id in _ann_ids(ref)}
        known = ", ".join(sorted({ref["split"] for ref in refs}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a list of refs ({reason(error)}); {DOWNLOAD}") from None
    for split, part in chosen.items():
        if not part:
            raise UserError(f"{file} has no split '{split}'; it has {known}")
    images, annotations = _read_instances(file.with_name("instances.json"), wanted)
    found = {}
    for split, part in chosen.items():
        references = [_reference(index, ref, images, annotations, file, photos) for index, ref in enumerate(part)]
        found[split] = Split(dataset, split, root / photos, references)
    return found


def _belongs(mark: str, split: str) -> bool:
    """As published: `testA` is any mark with the letter A after "test", `test` any mark that contains "test"."""
    if split.startswith("test") and len(split) > len("test"):
        return "test" in mark and split[-1] in mark.split("test", 1)[1]
    return mark == split or (split == "test" and "test" in mark)


def _key(value: Any) -> Any:
    """What an id is looked up as: the refs or the instances may have "12" where the others have 12."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _read_instances(file: Path, wanted: set) -> tuple[dict[Any, dict], dict[Any, dict]]:
    """Images and annotations by `_key`. Annotations that no ref names are dropped during parsing: there are 150,000."""

    def drop_unwanted(entry: dict[str, Any]) -> dict[str, Any] | None:
        return None if "segmentation" in entry and _key(entry.get("id")) not in wanted else entry

    try:
        content = json.loads(from_utf8(file.read_bytes()), object_hook=drop_unwanted)
        annotations = {_key(entry["id"]): entry for entry in content["annotations"] if entry is not None}
        return {_key(image["id"]): image for image in content["images"]}, annotations
    except FileNotFoundError:
        raise UserError(f"{file} is not there; {DOWNLOAD}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is not a COCO annotation file ({reason(error)}); {DOWNLOAD}") from None


def _ann_ids(ref: dict) -> list:
    """The annotations of the objects that a ref names, by `_key`; none where nothing in the photo fits it."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [] if _is_absent(ref) else [_key(ann_id) for ann_id in ids]


def _is_absent(ref: dict) -> bool:
    return ref["ann_id"] in ([-1], ["-1"]) or ref.get("source") == "zero"


def _outline(annotations: Sequence[dict]) -> tuple[tuple[int, int, int, int], list]:
    """The box around all of a ref's annotations, and the parts of their masks."""
    # Kept quirk: boxes are cut to integers before adding.
    boxes = [[int(value) for value in annotation["bbox"]] for annotation in annotations]
    left, top, right, bottom = zip(*((x, y, x + w, y + h) for x, y, w, h in boxes), strict=True)
    parts: list[Any] = []
    for annotation in annotations:
        own = annotation["segmentation"]
        parts += own if isinstance(own, list) and own else [own or None]  # an object without a part is damaged
    return (min(left), min(top), max(right), max(bottom)), parts


def _reference(
    index: int, ref: dict, images: dict[Any, dict], annotations: dict[Any, dict], file: Path, photos: str
) -> Reference:
    where = f"{file}: ref {shown(ref.get('ref_id'))}"
    try:
        image, category = images[_key(ref["image_id"])], ref.get("category_id")
        photo = checked_path(image["file_name"], where)
        if photos == ".":
            photo = f"{'val2014' if 'val2014' in photo else 'train2014'}/{photo}"
        box, segmentation = None, ABSENT
        if not _is_absent(ref):
            box, segmentation = _outline([annotations[ann_id] for ann_id in _ann_ids(ref)])
        return Reference(
            index=index,
            ref_id=checked_name(ref["ref_id"], where),
            image_id=checked_name(ref["image_id"], where),
            photo=photo,
            size=(int(image["height"]), int(image["width"])),
            sentences=checked_sentences([entry["sent"] for entry in ref["sentences"]], where),
            box=box,
            segmentation=segmentation,
            category=tuple(category) if isinstance(category, list) else category,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}, its image or annotation is absent or damaged ({reason(error)}); {DOWNLOAD}"
        ) from None
