"""The files between the stages. Every name and format is defined here and nowhere else.

<name>                          a ref of the exported split, `<ref index>_<image id>`, see `Reference.name`
<dataset>_<split>_names.json    the names, in the order of the refs (the "train list")
<dataset>_<split>_images.json   name -> path of the photo below the image folder
<cam dir>/<name>.npy            response map, float32 (H, W), in 0..1, at the size of the photo as annotated; or
<cam dir>/<name>.npz            the scores that it follows from, hundreds of times smaller, see `write_scores`
<ir_label dir>/<name>.png       IRNet's training label, uint8 (H, W): 0 background, 1 foreground, 255 unknown
<ins_seg dir>/<name>.png        pseudo mask, uint8 (H, W): 0 background, 255 foreground
<ins_seg dir>/<name>.json       its instances, see `write_mask`
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataset.checks import checked_name, checked_path
from dataset.masks import foreground
from dataset.photos import MAX_PIXELS, at_size, opened, same_aspect
from utils.errors import UserError, reason
from utils.files import atomic_write, read_json, write_json
from utils.maps import at_photo_size, full_maps

BACKGROUND, FOREGROUND, UNKNOWN = 0, 1, 255  # the values of an IR label
EXPORT = "export it with validate.py --prms --cam_save_dir ... --name_save_dir ..."


def names_path(folder: str | Path, dataset: str, split: str) -> Path:
    """The list of names of an exported split."""
    return Path(folder) / f"{dataset}_{split}_names.json"


def images_path(names_file: str | Path) -> Path:
    """The table name -> photo that belongs to a list of names and lies beside it."""
    return Path(names_file).with_name(Path(names_file).name.replace("_names.json", "") + "_images.json")


def write_names(names_file: Path, images: dict[str, str]) -> None:
    """Write the list of names and the table beside it. `images`: name -> path, in the order of the refs."""
    write_json(images_path(names_file), images)
    write_json(names_file, list(images))


def read_images(names_file: str | Path) -> dict[str, str]:
    """name -> path of the photo below the image folder, in the order of the list.

    The published code writes no table: there, names end in the id of a COCO photo.
    """
    names, table = read_json(names_file, EXPORT), images_path(names_file)
    if not isinstance(names, list) or not all(isinstance(name, str) and "_" in name for name in names):
        raise UserError(f"{names_file} is not a list of names like '12_581857'; {EXPORT}")
    if table.is_file():
        images = read_json(table, EXPORT)
    else:
        ids = {name: name.rsplit("_", 1)[1] for name in names}
        images = {name: f"COCO_train2014_{i.zfill(12)}.jpg" for name, i in ids.items() if i.isdecimal()}
    if not isinstance(images, dict) or not all(images.get(name) for name in names):
        raise UserError(f"{table} does not name the photo of every name in {names_file}; {EXPORT}")
    return {checked_name(name, str(names_file)): checked_path(images[name], f"{table}: {name}") for name in names}


def map_path(folder: str | Path, name: str) -> Path:
    """The file of a ref's response map: the scores where they are there, else the full map."""
    scores = Path(folder) / f"{name}.npz"
    return scores if scores.is_file() else Path(folder) / f"{name}.npy"


def write_map(folder: str | Path, name: str, response: np.ndarray) -> None:
    """Save a response map, float32 (H, W), in place of what was there in either format."""
    with atomic_write(Path(folder) / f"{name}.npy") as file:
        (Path(folder) / f"{name}.npz").unlink(missing_ok=True)
        np.save(file, response.astype(np.float32), allow_pickle=False)


def write_scores(
    folder: str | Path, name: str, scores: np.ndarray, input_size: tuple[int, int], photo_size: tuple[int, int]
) -> None:
    """Save a response map as stage 1's scores, float32 (h, w), with the sizes (H, W) of the network's input and photo.

    It replaces what was there in either format. `read_map` returns the map that belongs to them, the same to the bit
    on the same kind of device.
    """
    with atomic_write(Path(folder) / f"{name}.npz") as file:
        (Path(folder) / f"{name}.npy").unlink(missing_ok=True)
        np.savez(file, scores=scores.astype(np.float32), input_size=input_size, photo_size=photo_size)


def read_map(folder: str | Path, name: str) -> np.ndarray:
    """A response map of either format, float32 (H, W); UserError where it is absent, damaged or not finite."""
    path = map_path(folder, name)
    try:
        # Mapped: a header that promises more than the file holds is refused before memory is allocated.
        stored = np.load(path, allow_pickle=False, mmap_mode="r")
        response = np.array(stored if path.suffix == ".npy" else _map_from_scores(stored), dtype=np.float32)
        if response.ndim != 2 or not response.size or not np.isfinite(response).all():
            raise ValueError("it is not a two-dimensional array of finite numbers")
    except FileNotFoundError:
        raise UserError(f"the response map {path} is not there; {EXPORT}") from None
    except Exception as error:  # a damaged file can raise almost anything
        raise UserError(f"the response map {path} cannot be read ({reason(error)}); {EXPORT}") from None
    return response


def _map_from_scores(stored: np.lib.npyio.NpzFile) -> np.ndarray:
    with stored:
        if any(member.file_size > MAX_PIXELS for member in stored.zip.infolist()):
            raise ValueError("it unpacks to an absurd size")
        scores = torch.from_numpy(stored["scores"].astype(np.float32))
        input_size, photo_size = (tuple(int(n) for n in stored[key]) for key in ("input_size", "photo_size"))
    for height, width in (scores.shape, input_size, photo_size):
        if height < 1 or width < 1 or height * width > MAX_PIXELS:
            raise ValueError(f"it holds an absurd size, {height} x {width}")
    return at_photo_size(full_maps(scores[None, None], input_size), photo_size)[0].numpy()


def png_path(folder: str | Path, name: str) -> Path:
    """The file of a ref's IR label or pseudo mask."""
    return Path(folder) / f"{name}.png"


def write_label(folder: str | Path, name: str, label: np.ndarray) -> None:
    """Save an IR label, uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`."""
    _write_png(folder, name, label)


def read_label(folder: str | Path, name: str) -> np.ndarray:
    """An IR label, uint8 (H, W) of `BACKGROUND`, `FOREGROUND` and `UNKNOWN`."""
    return _read_png(folder, name, "make it with IRNet/run_sample_refer.py --cam_to_ir_label_pass True")


def instances_path(folder: str | Path, name: str) -> Path:
    """The file of the instances of a ref's pseudo mask, beside the mask."""
    return Path(folder) / f"{name}.json"


def write_mask(folder: str | Path, name: str, mask: np.ndarray, instances: list[dict] | None = None) -> None:
    """Save a pseudo mask, bool (H, W); first its instances, if given, because a ref that has a mask counts as finished.

    instances: dictionaries with `segmentation` (COCO's RLE), `score` and `instance`.
    """
    if instances is not None:
        write_json(instances_path(folder, name), instances)
    _write_png(folder, name, np.where(mask, 255, 0))


def read_mask(folder: str | Path, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A pseudo mask, bool (H, W), at `size` (H, W) if that is given; UserError where it has another aspect ratio."""
    hint = "make it with IRNet/run_sample_refer.py --make_ins_seg_pass True"
    mask = _read_png(folder, name, hint, foreground)
    size = size or mask.shape
    if not same_aspect(mask.shape, size):
        sizes = f"{mask.shape[0]} x {mask.shape[1]}, its photo {size[0]} x {size[1]}"
        raise UserError(f"the pseudo mask {png_path(folder, name)} is {sizes}; remove it and {hint}")
    return at_size(mask, size)


def _write_png(folder: str | Path, name: str, pixels: np.ndarray) -> None:
    with atomic_write(png_path(folder, name)) as file:
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG", optimize=True)


def _read_png(
    folder: str | Path, name: str, hint: str, pixels: Callable = lambda image: np.asarray(image.convert("L"))
) -> np.ndarray:
    path = png_path(folder, name)
    try:
        with opened(path, ["PNG"]) as image:
            return pixels(image)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; {hint}") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a PNG ({error}); {hint}") from None
