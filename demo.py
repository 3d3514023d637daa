"""Segment your own photos by sentences.

    python demo.py --img figs/demo.png --text 'man on the right'

writes `figs/demo_(man on the right).png`, the response over the photo. `python demo.py --web` does the same on a
page in the browser.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Container
from importlib.util import find_spec
from pathlib import Path

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
PUBLISHED = "stage2_refcocog_umd"
REPOSITORY = Path(__file__).parent


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0], "python demo.py --img figs/demo.png --text 'man on the right'")
    parser.add_argument("--img", type=Path, metavar="FILE", help="a photo, or a folder of photos")
    parser.add_argument("--text", nargs="+", metavar="SENTENCE", help="what to segment, one or several sentences")
    parser.add_argument("--web", action="store_true", help="open a page for the browser, on this machine only")
    parser.add_argument("--port", type=port_number, default=7860, help="the page's port; 0 takes any free one")
    words = f"a checkpoint of either stage (default: the published {PUBLISHED}, downloaded on first use)"
    parser.add_argument("--pretrain", type=Path, metavar="FILE", help=words)
    parser.add_argument("--output", type=Path, default=Path("figs"), metavar="FOLDER", help="where the pictures go")
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
    photos = [args.img]
    if args.img and args.img.is_dir():
        photos = sorted(file for file in args.img.iterdir() if file.suffix.lower() in PHOTOS)
        if not photos:
            raise UserError(f"the folder {args.img} holds no photo ({', '.join(PHOTOS)}); name another --img")
    try:
        device = torch.zeros(0, device=args.device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {args.device} cannot be used ({reason(error)}); try --device cpu") from None
    segmenter = load_model(args.pretrain or published_checkpoint(), device, args.size)
    if args.web:
        page = launch(segmenter, args.port)
        print(f"{page.local_url} is the demo's page; Ctrl-C ends it", flush=True)
        page.block_thread()
    else:
        segment_photos(segmenter, photos, args.text, args.output, args.mask)


def published_checkpoint() -> Path:
    """The published checkpoint, downloaded where it is not there yet; UserError where that fails."""
    file = REPOSITORY / "weights" / f"{PUBLISHED}.pth"
    script = REPOSITORY / "scripts" / "download_weights.sh"
    if not file.exists() and subprocess.run(["bash", script, PUBLISHED], cwd=REPOSITORY).returncode:
        raise UserError(f"{file} could not be downloaded, see above; try again, or give a checkpoint with --pretrain")
    return file


def segment_photos(segmenter: Segmenter, photos: list[Path], sentences: list[str], output: Path, masks: bool) -> None:
    """Write a picture for each photo and sentence, and the mask if `masks` is set; print the files' names."""
    written: set[Path] = set()
    for file in photos:
        photo = read_photo(file, upright=True, hint="name another --img")
        for sentence, response in zip(sentences, segmenter.respond(photo, sentences), strict=True):
            picture = picture_path(output, file, sentence, written)
            written.add(picture)
            save_png(picture, heat_overlay(np.asarray(photo), response))
            print(picture)
            if masks:
                mask = (response > segmenter.network.mask_threshold).astype(np.uint8)
                png, runs = (picture.with_name(f"{picture.stem}_mask.{ending}") for ending in ("png", "json"))
                save_png(png, mask * 255)
                encoded = coco.encode(np.asfortranarray(mask))
                write_json(runs, {"sentence": sentence, "size": encoded["size"], "counts": encoded["counts"].decode()})
                print(png, runs, sep="\n")


def picture_path(folder: Path, photo: Path, sentence: str, written: Container[Path]) -> Path:
    """`<photo>_(<sentence>).png`, numbered where that is written already.

    Of the sentence at most 100 bytes, with `_` for characters that file systems object to.
    """
    words = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "_", sentence).encode()[:100].decode(errors="ignore")
    picture, number = folder / f"{photo.stem}_({words}).png", 1
    while picture in written:
        number += 1
        picture = folder / f"{photo.stem}_({words})_{number}.png"
    return picture


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

    scratch = tempfile.TemporaryDirectory()  # for as long as the page

    def segment(photo, text: str, threshold: float):
        """For each sentence the response and the mask over the photo; the masks as files."""
        sentences = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if photo is None or not sentences:
            raise gr.Error("Choose a photo and type a sentence.")
        try:
            responses = segmenter.respond(photo, sentences)
        except UserError as error:
            raise gr.Error(str(error)) from None
        pictures, files, folder = [], [], Path(tempfile.mkdtemp(dir=scratch.name))
        for sentence, response in zip(sentences, responses, strict=True):
            mask = response > threshold
            caption = f"{sentence}: {mask.mean():.1%} of the photo"
            pictures += [(heat_overlay(photo, response), sentence), (mask_overlay(photo, mask), caption)]
            files.append(picture_path(folder, Path("mask"), sentence, files))
            save_png(files[-1], mask.astype(np.uint8) * 255)
        return pictures, [str(file) for file in files]

    with gr.Blocks(title="TRIS", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", sources=["upload", "clipboard"])
                text = gr.Textbox(lines=3, label="Sentences, one per line", placeholder="man on the right")
                threshold = gr.Slider(0, 1, segmenter.network.mask_threshold, label="Threshold of the mask")
                button = gr.Button("Segment", variant="primary")
            with gr.Column():
                pictures = gr.Gallery(label="Response and mask", columns=2, object_fit="contain", format="png")
                files = gr.Files(label="Masks")
        gr.on([button.click, threshold.release], segment, [photo, text, threshold], [pictures, files])
    return page


if __name__ == "__main__":
    run_script(main)
