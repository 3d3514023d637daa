"""ReferIt (RefCLEF): `annotations/{train,test}.pickle` and `images/<id>.jpg`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.checks import (
    checked_box,
    checked_id,
    checked_photo,
    checked_sentences,
    checked_size,
    require_new,
    require_unique,
)
from dataset.references import Reference, Split, Tell, strict
from dataset.unpickle import read_pickle
from utils.errors import UserError, reason, shown

DOWNLOAD = "put ReferIt's annotations there (data/README.md shows the tree)"
PHOTOS = "images"  # their folder, below the data folder
MIN_BOX_SHARE = 0.05  # kept: the published protocol evaluates only refs whose box covers more of the photo


def read_referit(root: Path, splits: Sequence[str], tell: Tell = strict) -> dict[str, Split]:
    """The splits asked for. A training item is one annotation; of another split only the large ones are evaluated.

    tell: is handed the error of each image with an annotation that cannot be used; the rest of the image is left out.
    """
    return {split: _read_split(root, split, tell) for split in splits}


def _read_split(root: Path, split: str, tell: Tell) -> Split:
    file = root / "annotations" / f"{split}.pickle"
    content = read_pickle(file, DOWNLOAD)
    if not isinstance(content, dict):
        raise UserError(f"{file} is no dictionary of images; {DOWNLOAD}")
    references: list[Reference] = []
    seen: set[int] = set()  # a pickle of a few bytes can repeat an object without end
    for image_id, image in content.items():
        where = f"{file}: image {shown(image_id)}"
        try:
            for annotation in image["annotations"]:
                require_new(id(annotation), seen, "same annotation", where)
                reference = _reference(len(references), image_id, annotation, where)
                if split == "train" or _covers_enough(reference):
                    references.append(reference)
        except UserError as error:
            tell(error)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
            tell(UserError(f"{where} is damaged ({type(error).__name__}: {reason(error)}); {DOWNLOAD}"))
    if not references:
        raise UserError(f"{file} has no annotation to use; {DOWNLOAD}")
    require_unique((reference.ref_id for reference in references), "ref_id", str(file))
    return Split("referit", split, root / PHOTOS, references)


def _reference(index: int, image_id: int | str, annotation: dict[str, Any], where: str) -> Reference:
    query = annotation["query"]
    height, width = checked_size(*annotation["segmentation"][0]["size"], where)
    image_id = checked_id(image_id, "image id", where)
    return Reference(
        index=index,
        ref_id=checked_id(annotation.get("ref_id", f"{image_id}_{index}"), "ref_id", where),
        image_id=image_id,
        photo=checked_photo(f"{image_id}.jpg", where),
        height=height,
        width=width,
        sentences=checked_sentences([query] if isinstance(query, str) else query, where),
        box=checked_box(annotation["bbox"][0]),
        segmentation=annotation["segmentation"],
    )


def _covers_enough(reference: Reference) -> bool:
    x1, y1, x2, y2 = reference.box
    return (x2 - x1) * (y2 - y1) > MIN_BOX_SHARE * reference.width * reference.height
