"""ReferIt (RefCLEF): `annotations/{train,test}.pickle` and `images/<id>.jpg`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.references import Reference, Split, checked_photo, checked_sentence
from dataset.unpickle import read_pickle
from utils.errors import UserError

DOWNLOAD = "put ReferIt's annotations there (data/README.md shows the tree)"
MIN_BOX_SHARE = 0.05  # kept: the published protocol evaluates only refs whose box covers more of the photo


def read_referit(root: Path, splits: Sequence[str]) -> dict[str, Split]:
    """The splits asked for. A training item is one annotation; of another split only the large ones are evaluated."""
    return {split: _read_split(root, split) for split in splits}


def _read_split(root: Path, split: str) -> Split:
    file = root / "annotations" / f"{split}.pickle"
    content = read_pickle(file, DOWNLOAD)
    if not isinstance(content, dict):
        raise UserError(f"{file} is no dictionary of images; {DOWNLOAD}")
    references: list[Reference] = []
    for image_id, image in content.items():
        where = f"{file}: image {image_id}"
        try:
            for annotation in image["annotations"]:
                reference = _reference(len(references), image_id, annotation, where)
                if split == "train" or _covers_enough(reference):
                    references.append(reference)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{where} is damaged ({type(error).__name__}: {error}); {DOWNLOAD}") from None
    if not references:
        raise UserError(f"{file} has no annotation to use; {DOWNLOAD}")
    return Split("referit", split, root / "images", references)


def _reference(index: int, image_id: int | str, annotation: dict[str, Any], where: str) -> Reference:
    query = annotation["query"]
    sentences = [query] if isinstance(query, str) else query
    height, width = annotation["segmentation"][0]["size"]
    x1, y1, x2, y2 = (float(value) for value in annotation["bbox"][0])
    return Reference(
        index=index,
        ref_id=annotation.get("ref_id", f"{image_id}_{index}"),
        image_id=image_id,
        photo=checked_photo(f"{image_id}.jpg", where),
        height=int(height),
        width=int(width),
        sentences=tuple(checked_sentence(sentence, where) for sentence in sentences),
        box=(x1, y1, x2, y2),
        segmentation=annotation["segmentation"],
    )


def _covers_enough(reference: Reference) -> bool:
    x1, y1, x2, y2 = reference.box
    return (x2 - x1) * (y2 - y1) > MIN_BOX_SHARE * reference.width * reference.height
