"""Segment your own photos by sentences.

    python demo.py --img figs/demo.png --text 'man on the right'

writes `figs/demo_(man on the right).png`, the response over the photo. `python demo.py --web` does the same on a
page in the browser.
"""

import argparse
import re
import tempfile
from collections.abc import Container
from http.client import HTTPException
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import torch
from pycocotools import mask as coco

from dataset.photos import read_photo
from model.segmenter import Segmenter, load_model
from utils.errors import UserError, reason, run_script
from utils.files import write_json
from utils.options import Parser, input_size, port_number
from utils.pictures import heat_overlay, mask_overlay, save_png

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_CHECKPOINT = "weights/stage2_refcocog_umd.pth"
ADDRESS = "https://github.com/fawnliu/storage/releases/download/v1.0.1/stage2_refcocog_umd.pth"


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], "python demo.py --img figs/demo.png --text 'man on the right'")
    parser.add_argument("--img", metavar="FILE", help="a photo, or a folder of photos")
    parser.add_argument("--text", nargs="+", metavar="SENTENCE", help="what to segment, one or several sentences")
    parser.add_argument("--web", action="store_true", help="open a page for the browser, on this machine only")
    parser.add_argument("--port", type=port_number, default=7860, help="the page's port; 0 takes any free one")
    words = "a checkpoint of either stage; the default one is fetched on first use"
    parser.add_argument("--pretrain", default=DEFAULT_CHECKPOINT, metavar="FILE", help=words)
    parser.add_argument("--output", default="figs", metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--mask", action="store_true", help="also write each mask, as PNG and as COCO run lengths")
    parser.add_argument("--size", type=input_size, help="photos are resized to SIZE x SIZE (default: as in training)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ...")
    args = parser.parse_args()
    if not args.web and not (args.img and args.text):
        parser.error("give --img and --text, or --web")
    return args


def main() -> None:
    args = parse_args()
    if args.web and not find_spec("gradio"):
        raise UserError("--web needs Gradio; run: pip install -r requirements-web.txt")
    photos = [] if args.web else [Path(args.img)]
    if photos and photos[0].is_dir():
        photos = sorted(file for file in photos[0].iterdir() if file.suffix.lower() in PHOTOS)
        if not photos:
            raise UserError(f"the folder {args.img} holds no photo ({', '.join(PHOTOS)}); name another --img")
    try:
        device = torch.zeros(0, device=args.device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {args.device} cannot be used ({reason(error)}); try --device cpu") from None
    if args.pretrain == DEFAULT_CHECKPOINT and not Path(args.pretrain).exists():
        fetch(ADDRESS, Path(args.pretrain))
    segmenter = load_model(args.pretrain, device, args.size)
    if args.web:
        page = launch(segmenter, args.port)
        print(f"{page.local_url} is the demo's page; Ctrl-C ends it", flush=True)
        page.block_thread()
        return
    taken: set[Path] = set()
    for photo in photos:
        segment_photo(segmenter, photo, args.text, Path(args.output), args.mask, taken)


def fetch(address: str, path: Path) -> None:
    """Download a file, which appears under `path` only when it is complete."""
    part = path.with_name(f"{path.name}.download")
    try:
        with urlopen(Request(address, method="HEAD"), timeout=60) as answer:
            size = int(answer.headers["Content-Length"] or 0)
        print(f"{path}: fetching {size / 1e6:.1f} MB from {address}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(part))
        if size and part.stat().st_size != size:  # torch.hub does not notice a cut connection
            raise OSError(f"only {part.stat().st_size} of {size} bytes arrived")
        part.replace(path)
    except (OSError, HTTPException) as error:
        part.unlink(missing_ok=True)
        hint = f"try again later, or run: bash scripts/download_weights.sh {path.stem}"
        raise UserError(f"{path} cannot be fetched from {address} ({reason(error)}); {hint}") from None


def segment_photo(segmenter: Segmenter, file: Path, sentences: list[str], output: Path, masks: bool, taken: set[Path]):
    """Write the pictures of one photo, and its masks if `masks` is set, and print the files' names.

    taken: pictures that this run has written so far; this photo's are added.
    """
    photo = read_photo(file, upright=True, hint="name another --img")
    for sentence, response in zip(sentences, segmenter.respond(photo, sentences), strict=True):
        picture = picture_path(output, file, sentence, taken)
        taken.add(picture)
        save_png(picture, heat_overlay(np.asarray(photo), response))
        print(picture)
        if masks:
            mask = (response > segmenter.network.mask_threshold).astype(np.uint8)
            png, runs = (picture.with_name(f"{picture.stem}_mask.{ending}") for ending in ("png", "json"))
            save_png(png, mask * 255)
            encoded = coco.encode(np.asfortranarray(mask))
            write_json(runs, {"sentence": sentence, "size": encoded["size"], "counts": encoded["counts"].decode()})
            print(png, runs, sep="\n")


def picture_path(output: Path, file: Path, sentence: str, taken: Container[Path]) -> Path:
    """`<photo>_(<sentence>).png`, numbered where that is taken: names leave out what file systems object to."""
    stem = f"{file.stem}_({file_name(sentence)})"
    names = chain([f"{stem}.png"], (f"{stem}_{number}.png" for number in count(2)))
    return next(output / name for name in names if output / name not in taken)


def file_name(sentence: str) -> str:
    """A sentence as part of a file name: at most 100 bytes, without characters that file systems object to."""
    return re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", sentence).encode()[:100].decode(errors="ignore")


def launch(segmenter: Segmenter, port: int):
    """The running page, a `gradio.Blocks`, which this machine alone can reach; UserError where the port is taken."""
    from starlette.middleware import Middleware  # comes with Gradio
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    page = build_page(segmenter)
    # Other sites' pages cannot reach this one under names of their own (DNS rebinding).
    only_ours = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port or None,  # None: the first free one from 7860 on
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"middleware": [only_ours]},
        )
    except OSError:
        raise UserError(f"port {port} cannot be used; choose another --port") from None
    return page


def build_page(segmenter: Segmenter):
    """The page, a `gradio.Blocks`: a photo and sentences in, pictures to see and masks to download out."""
    import gradio as gr  # an extra

    def segment(photo, text: str, threshold: float):
        sentences = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if photo is None or not sentences:
            raise gr.Error("Choose a photo and type a sentence.")
        try:
            found = (np.asarray(photo), sentences, segmenter.respond(photo, sentences))
        except UserError as error:
            raise gr.Error(str(error)) from None
        return found, *paint(found, threshold)

    def paint(found, threshold: float):
        """For each sentence the response and the mask over the photo; the masks as files."""
        pictures, files, folder = [], [], Path(tempfile.mkdtemp(dir=scratch.name))
        for sentence, response in zip(*found[1:], strict=True) if found else ():
            mask = response > threshold
            share = f"{sentence}: {mask.mean():.1%} of the photo"
            pictures += [(heat_overlay(found[0], response), sentence), (mask_overlay(found[0], mask), share)]
            files.append(picture_path(folder, Path("mask"), sentence, files))
            save_png(files[-1], mask.astype(np.uint8) * 255)
        return pictures, [str(file) for file in files]

    scratch = tempfile.TemporaryDirectory()  # for as long as the page
    with gr.Blocks(title="TRIS", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        found = gr.State()
        with gr.Row():
            with gr.Column():
                photo = gr.Image(type="pil", label="Photo", sources=["upload", "clipboard"])
                text = gr.Textbox(lines=3, label="Sentences, one per line", placeholder="man on the right")
                threshold = gr.Slider(0, 1, segmenter.network.mask_threshold, label="Threshold of the mask")
                button = gr.Button("Segment", variant="primary")
            with gr.Column():
                pictures = gr.Gallery(label="Response and mask", columns=2, object_fit="contain", format="png")
                files = gr.Files(label="Masks")
        button.click(segment, [photo, text, threshold], [found, pictures, files])
        threshold.release(paint, [found, threshold], [pictures, files])
    return page


if __name__ == "__main__":
    run_script(main)
