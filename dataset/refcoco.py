"""RefCOCO, RefCOCO+ and RefCOCOg as they are distributed: `instances.json` and `refs(<split by>).p`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.checks import checked_name, checked_path, checked_sentences
from dataset.references import Reference, Split
from dataset.unpickle import read_pickle
from utils.errors import UserError, reason, shown
from utils.files import from_utf8

PHOTOS = "train2014"  # the folder of photos, below the data folder
DOWNLOAD = "fetch the annotations with scripts/download_data.sh (see data/README.md)"


def read_refcoco(dataset: str, root: Path, split_by: str, splits: Sequence[str]) -> dict[str, Split]:
    """The splits asked for; UserError for an absent, damaged or inconsistent file and for an unknown split."""
    file = root / "refer" / dataset / f"refs({split_by}).p"
    refs = read_pickle(file, DOWNLOAD)
    try:
        chosen = {split: [ref for ref in refs if _belongs(ref["split"], split)] for split in splits}
        wanted = {_key(ref["ann_id"]) for part in chosen.values() for ref in part}
        known = ", ".join(sorted({ref["split"] for ref in refs}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a list of refs ({reason(error)}); {DOWNLOAD}") from None
    for split, part in chosen.items():
        if not part:
            raise UserError(f"{file} has no split '{split}'; it has {known}")
    images, annotations = _read_instances(file.with_name("instances.json"), wanted)
    found = {}
    for split, part in chosen.items():
        references = [_reference(index, ref, images, annotations, file) for index, ref in enumerate(part)]
        found[split] = Split(dataset, split, root / PHOTOS, references)
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


def _reference(index: int, ref: dict, images: dict[Any, dict], annotations: dict[Any, dict], file: Path) -> Reference:
    where = f"{file}: ref {shown(ref.get('ref_id'))}"
    try:
        image, annotation = images[_key(ref["image_id"])], annotations[_key(ref["ann_id"])]
        x, y, w, h = (int(value) for value in annotation["bbox"])  # kept quirk: cut to integers before adding
        return Reference(
            index=index,
            ref_id=checked_name(ref["ref_id"], where),
            image_id=checked_name(ref["image_id"], where),
            photo=checked_path(image["file_name"], where),
            size=(int(image["height"]), int(image["width"])),
            sentences=checked_sentences([entry["sent"] for entry in ref["sentences"]], where),
            box=(x, y, x + w, y + h),
            segmentation=annotation["segmentation"],
            category=ref.get("category_id"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}, its image or annotation is absent or damaged ({reason(error)}); {DOWNLOAD}"
        ) from None
