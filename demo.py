"""Segment your own photos by sentences.

    python demo.py --img figs/demo.png --text 'man on the right'

writes `figs/demo_(man on the right).png`: the response painted over the photo. `python demo.py --web` is the same as a
page in the browser.
"""

import argparse
import os
import re
from collections.abc import Container
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco

from dataset.photos import read_photo
from model.segmenter import Segmenter, load_model
from utils.download import fetch_all, mirrored
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.options import Parser, input_size, port_number
from utils.pictures import heat_overlay, save_png
from web import serve

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_CHECKPOINT = "weights/stage2_refcocog_umd.pth"


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Segment your own photos by sentences.", "python demo.py --img figs/demo.png --text 'man on the right'"
    )
    parser.add_argument("--img", metavar="FILE", help="a photo, or a folder of photos")
    parser.add_argument("--text", nargs="+", metavar="SENTENCE", help="what to segment; several are fine")
    parser.add_argument("--web", action="store_true", help="a page for it in the browser, on this machine alone")
    parser.add_argument("--port", type=port_number, default=7860, help="of the page; 0 is any free one")
    parser.add_argument("--pretrain", default=DEFAULT_CHECKPOINT, metavar="FILE", help="a checkpoint of either stage")
    parser.add_argument(
        "--mirror",
        default=os.environ.get("TRIS_MIRROR"),
        metavar="URL",
        help="fetch --pretrain from this folder where it is not there; $TRIS_MIRROR is the same",
    )
    parser.add_argument("--output", default="figs", metavar="FOLDER", help="where the pictures go")
    parser.add_argument(
        "--mask", action="store_true", help="also write each mask, as PNG and as COCO run lengths in JSON"
    )
    parser.add_argument(
        "--size", type=input_size, help="photos are resized to SIZE x SIZE for the network (default: as it was trained)"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, ..."
    )
    args = parser.parse_args()
    if not args.web and not (args.img and args.text):
        parser.error("give --img and --text, or --web")
    return args


def main() -> None:
    args = parse_args()
    photos = [] if args.web else _photos(Path(args.img))
    if args.mirror and not Path(args.pretrain).exists():
        fetch_all([mirrored(args.mirror, Path(args.pretrain).name, Path(args.pretrain))])
    segmenter = load_model(args.pretrain, _device(args.device), args.size)
    if args.web:
        serve(segmenter, args.port)
    written: set[Path] = set()
    for photo in photos:
        for path in segment_photo(segmenter, photo, args.text, Path(args.output), args.mask, written):
            print(path)


def segment_photo(
    segmenter: Segmenter, file: Path, sentences: list[str], output: Path, masks: bool, taken: set[Path]
) -> list[Path]:
    """Write the pictures, and with `masks` the masks, of one photo; returns the files.

    taken: the pictures that this run has written before; this photo's are added.
    """
    photo = read_photo(file, upright=True, cure="name another --img")
    responses = segmenter.respond(photo, sentences)
    written = []
    for sentence, response in zip(sentences, responses, strict=True):
        path = picture_path(output, file, sentence, taken)
        taken.add(path)
        save_png(path, heat_overlay(np.asarray(photo), response))
        written.append(path)
        if masks:
            written += _write_mask(path, sentence, response > segmenter.network.mask_threshold)
    return written


def picture_path(output: Path, file: Path, sentence: str, taken: Container[Path]) -> Path:
    """Named by photo and sentence; numbered where photos or sentences differ in what a name leaves out."""
    stem = f"{file.stem}_({file_name(sentence)})"
    names = chain([f"{stem}.png"], (f"{stem}_{number}.png" for number in count(2)))
    return next(output / name for name in names if output / name not in taken)


def _write_mask(picture: Path, sentence: str, mask: np.ndarray) -> list[Path]:
    """The mask beside its picture: a PNG of 0 and 255, and COCO's run lengths."""
    png, runs = (picture.with_name(picture.stem + ending) for ending in ("_mask.png", "_mask.json"))
    save_png(png, mask.astype(np.uint8) * 255)
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    write_json(runs, {"sentence": sentence, "size": encoded["size"], "counts": encoded["counts"].decode()})
    return [png, runs]


def file_name(sentence: str) -> str:
    """A sentence as part of a file's name: without what file systems object to, and 100 bytes long at most."""
    return re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", sentence).encode()[:100].decode(errors="ignore")


def _photos(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTOS)
    if not found:
        raise UserError(f"the folder {path} holds no photo ({', '.join(PHOTOS)}); name another --img")
    return found


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {name} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from None


if __name__ == "__main__":
    run_script(main)
