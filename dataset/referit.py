"""ReferIt (RefCLEF): `annotations/{train,test}.pickle` and `images/<id>.jpg`."""

from pathlib import Path

from dataset.checks import checked_name, checked_sentences
from dataset.references import Reference, Split
from dataset.unpickle import read_pickle
from utils.errors import UserError, reason, shown

PHOTOS = "images"  # the folder of photos, below the data folder
DOWNLOAD = "fetch the annotations with scripts/download_data.sh referit (see data/README.md)"
MIN_BOX_SHARE = 0.05  # as published: only refs whose box covers more of the photo are evaluated


def read_referit(root: Path, split: str) -> Split:
    """A split, each annotation a ref; of all splits but `train` only those with a large enough box.

    UserError for an absent or damaged file.
    """
    file = root / "annotations" / f"{split}.pickle"
    content = read_pickle(file, DOWNLOAD)
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a dictionary of images; {DOWNLOAD}")
    references: list[Reference] = []
    for image_id, image in content.items():
        where = f"{file}: image {shown(image_id)}"
        try:
            for annotation in image["annotations"]:
                x1, y1, x2, y2 = (float(value) for value in annotation["bbox"][0])
                height, width = (int(value) for value in annotation["segmentation"][0]["size"])
                query, number = annotation["query"], len(references)
                reference = Reference(
                    index=number,
                    ref_id=checked_name(annotation.get("ref_id", f"{image_id}_{number}"), where),
                    image_id=checked_name(image_id, where),
                    photo=f"{image_id}.jpg",
                    size=(height, width),
                    sentences=checked_sentences([query] if isinstance(query, str) else query, where),
                    box=(x1, y1, x2, y2),
                    segmentation=annotation["segmentation"],
                )
                if split == "train" or (x2 - x1) * (y2 - y1) > MIN_BOX_SHARE * width * height:
                    references.append(reference)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{where} is damaged ({reason(error)}); {DOWNLOAD}") from None
    if not references:
        raise UserError(f"{file} has no ref; {DOWNLOAD}")
    return Split("referit", split, root / PHOTOS, references)
