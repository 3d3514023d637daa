"""The files between the stages; every name and format stands here and nowhere else.

<name>              one ref of the exported split: `<ref index>_<image id>`
<dataset>_<split>_names.json    the list of names in the order of the refs (the "train list")
<dataset>_<split>_images.json   name -> path of the photo below the image folder
<cam dir>/<name>.npy            response map, float32 (H, W), in 0..1, at the size of the photo; or one record of the
                                scores (h, w) that it follows from and of the sizes, see `write_scores`
<ir_label dir>/<name>.png       IRNet's training label, uint8 (H, W): 0 background, 1 foreground, 255 unknown
<ins_seg dir>/<name>.png        pseudo mask, uint8 (H, W): 0 background, 255 foreground
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset.checks import checked_id, checked_photo, require_unique
from dataset.photos import MAX_PIXELS, opened
from utils.errors import UserError, reason
from utils.files import read_json, replacing, write_json
from utils.maps import at_photo_size, full_maps

BACKGROUND, FOREGROUND, UNKNOWN = 0, 1, 255  # the values of an IR label
FACTS = ("covered", "instances", "mean_response")  # of a pseudo mask: share of the photo, count, mean inside it
MASKED = 255  # a pseudo mask's foreground; its background is 0


def item_name(index: int, image_id: int | str) -> str:
    """The name of ref number `index` of a split in the image `image_id`."""
    return f"{index}_{image_id}"


def names_path(folder: str | Path, dataset: str, split: str) -> Path:
    """Where the list of names of an exported split lies."""
    return Path(folder) / f"{dataset}_{split}_names.json"


def images_path(names_file: str | Path) -> Path:
    """Where the table name -> photo of a list of names lies: beside it."""
    names_file = Path(names_file)
    return names_file.with_name(names_file.name.replace("_names.json", "") + "_images.json")


def write_names(names_file: Path, images: dict[str, str]) -> None:
    """Write the list of names and, beside it, the photo of each; `images`: name -> path, in the order of the refs."""
    write_json(images_path(names_file), images)
    write_json(names_file, list(images))


def read_images(names_file: str | Path) -> dict[str, str]:
    """name -> path of the photo below the image folder, in the order of the list.

    A list made by the published code has no table beside it: a name then ends in the id of a COCO photo.
    """
    cure = "write it with validate.py --prms --cam_save_dir ... --name_save_dir ..."
    names = read_json(names_file, cure)
    if not isinstance(names, list) or not all(isinstance(name, str) and "_" in name for name in names):
        raise UserError(f"{names_file} is not a list of names like '12_581857'; {cure}")
    for name in names:
        checked_id(name, "name", str(names_file))
    require_unique(names, "name", str(names_file))
    table = images_path(names_file)
    if not table.is_file():
        return {name: coco_file_name(name.rsplit("_", 1)[1], names_file) for name in names}
    images = read_json(table, cure)
    missing = [name for name in names if not isinstance(images, dict) or not isinstance(images.get(name), str)]
    if missing:
        raise UserError(f"{table} does not name the photo of {missing[0]}; {cure}")
    return {name: checked_photo(images[name], f"{table}: {name}") for name in names}


def coco_file_name(image_id: str, names_file: str | Path) -> str:
    """The photo of a COCO id, as text; UserError, naming the list, where it is no number."""
    if not image_id.isdecimal():
        raise UserError(
            f"{names_file}: '{image_id}' is no COCO image id, and {images_path(names_file).name} is not there"
        )
    return f"COCO_train2014_{int(image_id):012d}.jpg"


def map_path(folder: str | Path, name: str) -> Path:
    """The file of a ref's response map, of either format."""
    return Path(folder) / f"{name}.npy"


def label_path(folder: str | Path, name: str) -> Path:
    """The file of a ref's IR label."""
    return Path(folder) / f"{name}.png"


def mask_path(folder: str | Path, name: str) -> Path:
    """The file of a ref's pseudo mask."""
    return Path(folder) / f"{name}.png"


def instances_path(folder: str | Path, name: str) -> Path:
    """The file of the instances of a ref's pseudo mask, beside it."""
    return Path(folder) / f"{name}.json"


def write_map(folder: str | Path, name: str, response: np.ndarray) -> None:
    """Save a response map, float32 (H, W)."""
    with replacing(map_path(folder, name)) as file:
        np.save(file, response.astype(np.float32), allow_pickle=False)


def write_scores(
    folder: str | Path, name: str, scores: np.ndarray, input_size: tuple[int, int], photo_size: tuple[int, int]
) -> None:
    """Save a response map as stage 1's scores, float32 (h, w), and the sizes (H, W) of the network's input and photo.

    `read_map` makes of it what `write_map` would have been given: the same bits where the same kind of device computes.
    """
    record = np.array((scores, input_size, photo_size), dtype=_record_type(scores.shape))
    with replacing(map_path(folder, name)) as file:
        np.save(file, record, allow_pickle=False)


def read_map(folder: str | Path, name: str) -> np.ndarray:
    """A response map of either format, float32 (H, W); UserError where it is absent, damaged or not finite."""
    path = map_path(folder, name)
    cure = "export it again with validate.py --prms --cam_save_dir ..."
    try:
        # Mapped, so that a header which promises more than the file holds is refused before memory is asked for.
        response = np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"the response map {path} is not there; {cure}") from None
    except Exception as error:  # a damaged header can raise almost anything
        raise UserError(f"the response map {path} cannot be read ({reason(error)}); {cure}") from None
    if isinstance(response, np.ndarray) and _holds_scores(response):
        response = _map_from_scores(*response.item(), f"the response map {path} holds absurd sizes; {cure}")
    if not isinstance(response, np.ndarray) or response.ndim != 2 or response.dtype.kind != "f" or not response.size:
        raise UserError(f"the response map {path} is not a two-dimensional array of floats; {cure}")
    if not np.isfinite(response).all():
        raise UserError(f"the response map {path} holds values that are not finite; {cure}")
    return np.array(response, dtype=np.float32)


def _record_type(shape: tuple[int, int]) -> np.dtype:
    return np.dtype([("scores", "<f4", shape), ("input_size", "<i4", (2,)), ("photo_size", "<i4", (2,))])


def _holds_scores(response: np.ndarray) -> bool:
    kind = response.dtype
    return response.ndim == 0 and kind.names is not None and kind[0].ndim == 2 and kind == _record_type(kind[0].shape)


def _map_from_scores(scores: np.ndarray, input_size: np.ndarray, photo_size: np.ndarray, absurd: str) -> np.ndarray:
    sizes = (np.array(scores.shape), input_size, photo_size)
    if not all((size > 0).all() and size.prod(dtype=float) <= MAX_PIXELS for size in sizes):
        raise UserError(absurd)
    maps = full_maps(torch.tensor(scores)[None, None], tuple(input_size.tolist()))
    return at_photo_size(maps, tuple(photo_size.tolist()))[0].numpy()


def write_label(folder: str | Path, name: str, label: np.ndarray) -> None:
    """Save an IR label, uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`."""
    _write_png(label_path(folder, name), label)


def write_mask(folder: str | Path, name: str, mask: np.ndarray, facts: dict[str, float] | None = None) -> None:
    """Save a pseudo mask, bool (H, W), and what is known about it; `read_facts` gives that back."""
    _write_png(mask_path(folder, name), np.where(mask, MASKED, 0), json.dumps(facts or {}))


def read_facts(folder: str | Path, name: str) -> dict[str, float]:
    """The `FACTS` that `write_mask` was told about a pseudo mask; none where another program wrote it."""
    path = mask_path(folder, name)
    try:
        with opened(path, ["PNG"]) as image:
            facts = json.loads(image.info.get("facts", "{}"))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a PNG ({reason(error)}); remove it and make it again") from None
    return facts if isinstance(facts, dict) and all(_is_fact(facts.get(key)) for key in FACTS) else {}


def _is_fact(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_PIXELS


def write_instances(folder: str | Path, name: str, instances: list[dict]) -> None:
    """Save the instances of a pseudo mask: dictionaries with `segmentation` (COCO run lengths), `score`, `instance`."""
    write_json(instances_path(folder, name), instances)


def read_label(folder: str | Path, name: str) -> np.ndarray:
    """An IR label, uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`."""
    return _read_png(label_path(folder, name), "make it with IRNet/run_sample_refer.py --cam_to_ir_label_pass True")


def read_mask(folder: str | Path, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A pseudo mask, bool (H, W); UserError where it has not the `size` (H, W) of its photo, if that is given."""
    path, cure = mask_path(folder, name), "make it with IRNet/run_sample_refer.py --make_ins_seg_pass True"
    mask = _read_png(path, cure) > 0
    if size is not None and mask.shape != size:
        sizes = f"{mask.shape[0]} x {mask.shape[1]}, its photo {size[0]} x {size[1]}"
        raise UserError(f"the pseudo mask {path} is {sizes}; remove it and {cure}")
    return mask


def _write_png(path: Path, pixels: np.ndarray, facts: str = "") -> None:
    text = PngInfo()
    if facts:
        text.add_text("facts", facts)
    with replacing(path) as file:
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG", optimize=True, pnginfo=text)


def _read_png(path: Path, cure: str) -> np.ndarray:
    try:
        with opened(path, ["PNG"]) as image:
            return np.asarray(image.convert("L"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {cure}") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a PNG ({error}); {cure}") from None
