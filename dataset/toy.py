"""The toy world: a data set that needs no download, in the files of RefCOCOg (or of ReferIt).

    python -m dataset.toy --output data/toy
    python -m dataset.toy --output data/toy_referit --layout referit

The same flags give the same bytes. Annotations are removed first and written last: where they are, all photos are.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from dataset.toy_scenes import SHAPES, Scene, Thing, paint, random_scene
from dataset.toy_sentences import Meaning, sentences
from utils.errors import UserError, run_script
from utils.files import replacing, write_json
from utils.options import Parser, non_negative_int, positive_int

DESCRIPTION = "toy world of TRIS"
MARKER = "toy_world.json"  # beside the annotations, from the first photo on
SPLITS = ("train", "val", "test")
RLE_EVERY = 10  # every tenth annotation is run-length encoded instead of a polygon: both occur in COCO


class Photo(NamedTuple):
    """One photo: its scene, its JPEG file, and the sentences of the objects that have at least two."""

    image_id: int
    split: str
    scene: Scene
    jpeg: bytes
    spoken_of: list[tuple[Thing, list[tuple[str, Meaning]]]]


def make_photo(seed: int, image_id: int, split: str) -> Photo:
    """The photo `image_id` of the world of this seed; it depends on nothing else."""
    rng = np.random.default_rng((seed, image_id))
    while True:
        scene = random_scene(rng, int(rng.integers(2, 5)))
        said = [(thing, sentences(rng, scene, thing)) for thing in scene.things]
        spoken_of = [(thing, texts) for thing, texts in said if len(texts) > 1]
        if spoken_of:
            break
    quality = int(rng.integers(85, 96))
    _, jpeg = cv2.imencode(".jpg", paint(rng, scene)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Photo(image_id, split, scene, jpeg.tobytes(), spoken_of)


def make_photos(seed: int, counts: dict[str, int]) -> Iterator[Photo]:
    """The photos of all splits, ids 1, 2, ...; `counts`: photos per split."""
    of_split = [split for split in SPLITS for _ in range(counts[split])]
    for index, split in enumerate(tqdm(of_split, desc="toy world", unit="photo", disable=None)):
        yield make_photo(seed, index + 1, split)


def polygon(thing: Thing) -> list[float]:
    """An object's outline as COCO writes it: x0, y0, x1, y1, ... in pixels."""
    return [round(float(value), 2) for value in thing.contour.reshape(-1)]


def run_length(thing: Thing, scene: Scene) -> dict[str, Any]:
    """An object's mask as COCO's compressed run-length code, with its counts as text."""
    rle = coco_mask.frPyObjects([polygon(thing)], scene.height, scene.width)[0]
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def bounding_box(thing: Thing) -> list[float]:
    """x, y, width, height in pixels."""
    low, high = thing.contour.min(axis=0), thing.contour.max(axis=0)
    return [round(float(value), 2) for value in (*low, *(high - low))]


def file_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def _annotation(ann_id: int, thing: Thing, photo: Photo) -> dict[str, Any]:
    rle = run_length(thing, photo.scene)
    return {
        "id": ann_id,
        "image_id": photo.image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "segmentation": [polygon(thing)] if ann_id % RLE_EVERY else rle,
        "area": float(coco_mask.area(rle)),
        "bbox": bounding_box(thing),
        "iscrowd": 0,
    }


def _ref(ref_id: int, ann_id: int, thing: Thing, photo: Photo, texts: list[str], first_id: int) -> dict[str, Any]:
    said = [
        {"sent_id": first_id + i, "sent": text, "raw": text.capitalize() + ".", "tokens": text.split()}
        for i, text in enumerate(texts)
    ]
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "image_id": photo.image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "file_name": file_name(photo.image_id).replace(".jpg", f"_{ann_id}.jpg"),
        "split": photo.split,
        "sent_ids": [sentence["sent_id"] for sentence in said],
        "sentences": said,
    }


def write_refcocog(output: Path, photos: Iterator[Photo]) -> tuple[int, int]:
    """Write photos and annotations as RefCOCOg lays them out; returns the numbers of photos and of refs."""
    folder = output / "refer" / "refcocog"
    _make_way(folder, ("instances.json", "refs(umd).p"), output / "train2014")
    images, annotations, refs = [], [], []
    sentence_count = 0
    for photo in photos:
        name = file_name(photo.image_id)
        _write_bytes(output / "train2014" / name, photo.jpeg)
        size = {"height": photo.scene.height, "width": photo.scene.width}
        images.append({"id": photo.image_id, "file_name": name, **size})
        texts_of = {id(thing): [text for text, _ in said] for thing, said in photo.spoken_of}
        for thing in photo.scene.things:
            annotations.append(_annotation(len(annotations) + 1, thing, photo))
            if texts := texts_of.get(id(thing)):
                refs.append(_ref(len(refs) + 1, len(annotations), thing, photo, texts, sentence_count + 1))
                sentence_count += len(texts)
    _write_bytes(folder / "refs(umd).p", pickle.dumps(refs, protocol=2))
    categories = [{"id": i + 1, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES)]
    tables = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "instances.json", {"info": {"description": DESCRIPTION}, **tables})
    return len(images), len(refs)


def write_referit(output: Path, photos: Iterator[Photo]) -> tuple[int, int]:
    """The same as ReferIt lays it out. It knows no val split: its photos are left out."""
    folder = output / "annotations"
    _make_way(folder, ("train.pickle", "test.pickle"), output / "images")
    items: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
    for photo in photos:
        if photo.split in items:
            _write_bytes(output / "images" / f"{photo.image_id}.jpg", photo.jpeg)
            items[photo.split][str(photo.image_id)] = {"annotations": _referit_annotations(photo)}
    for split, table in items.items():
        _write_bytes(folder / f"{split}.pickle", pickle.dumps(table, protocol=2))
    tables = [entry for table in items.values() for entry in table.values()]
    return len(tables), sum(len(entry["annotations"]) for entry in tables)


def _referit_annotations(photo: Photo) -> list[dict[str, Any]]:
    annotations = []
    for index, (thing, said) in enumerate(photo.spoken_of):
        x, y, width, height = bounding_box(thing)
        annotations.append(
            {
                "image_id": str(photo.image_id),
                "ref_id": f"{photo.image_id}_{index}",
                "query": [text for text, _ in said],
                "bbox": [[x, y, x + width, y + height]],
                "segmentation": [run_length(thing, photo.scene)],
            }
        )
    return annotations


def _make_way(folder: Path, annotations: Sequence[str], photos: Path) -> None:
    """Mark the annotations' folder as a toy world's, also where one is not finished, and remove its annotations.

    Raises UserError, with nothing changed, where annotations or photos on the disk are not a toy world's.
    """
    files = [folder / name for name in annotations if (folder / name).exists()]
    there = [*files, *islice(photos.glob("*"), 1)]
    if there and not _is_toy_world(folder):
        raise UserError(f"{there[0]} belongs to another data set and is not overwritten; give another --output")
    write_json(folder / MARKER, {"info": {"description": DESCRIPTION}})
    for file in files:
        file.unlink()


def _is_toy_world(folder: Path) -> bool:
    instances = folder / "instances.json"
    if not instances.exists():
        return (folder / MARKER).exists()
    try:
        return json.loads(instances.read_text())["info"]["description"] == DESCRIPTION
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


LAYOUTS = {"refcocog": write_refcocog, "referit": write_referit}


def parse_args() -> Any:
    parser = Parser("Draw the toy world.", "python -m dataset.toy --output data/toy")
    parser.add_argument("--output", type=Path, default=Path("data/toy"), help="folder to write to")
    parser.add_argument("--layout", choices=LAYOUTS, default="refcocog", help="whose files to write")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="another seed draws another world")
    parser.add_argument("--train_scenes", type=positive_int, default=200, help="photos to train on")
    parser.add_argument("--val_scenes", type=positive_int, default=60, help="photos of the split val")
    parser.add_argument("--test_scenes", type=positive_int, default=70, help="photos of the split test")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = {"train": args.train_scenes, "val": args.val_scenes, "test": args.test_scenes}
    photos, refs = LAYOUTS[args.layout](args.output, make_photos(args.seed, counts))
    print(f"{args.output}: {photos} photos, {refs} refs in the layout of {args.layout}")


if __name__ == "__main__":
    run_script(main)
