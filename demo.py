"""Segment your own photos by sentences.

    python demo.py --img figs/demo.png --text 'man on the right'

writes `figs/demo_(man on the right).png`, the response over the photo. `python demo.py --web` does the same on a
page in the browser.
"""

from utils.start import run_script

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataset.checks import checked_sentence
from dataset.masks import run_lengths
from dataset.photos import photos_in, read_photo
from model.refine import NO_CLICKS, Clicks
from model.segmenter import EncodedPhoto, Segmenter, load_model
from utils.errors import UserError, as_unicode, one_line, reason
from utils.files import write_json
from utils.options import Parser, add_sam_option, input_size, port_number
from utils.pictures import heat_overlay, mask_overlay, save_png

PUBLISHED = "stage2_refcocog_umd"
REPOSITORY = Path(__file__).parent
ADDS = "adds to the first mask"  # said of a click on the page


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__, "python demo.py --img figs/demo.png --text 'man on the right'")
    parser.add_argument("--img", nargs="+", type=Path, metavar="FILE", help="photos, or folders of photos")
    parser.add_argument(
        "--text", nargs="+", type=as_unicode, metavar="SENTENCE", help="what to segment, one or several sentences"
    )
    parser.add_argument("--web", action="store_true", help="open a page for the browser, on this machine only")
    parser.add_argument("--port", type=port_number, default=7860, help="the page's port; 0 takes any free one")
    words = f"a checkpoint of either stage (default: the published {PUBLISHED}, downloaded on first use)"
    parser.add_argument("--pretrain", type=Path, metavar="FILE", help=words)
    parser.add_argument("--output", type=Path, default=Path("figs"), metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--mask", action="store_true", help="also write each mask, as PNG and as COCO run lengths")
    parser.add_argument("--size", type=input_size, help="photos are resized to SIZE x SIZE (default: as in training)")
    add_sam_option(parser)
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
    try:
        device = torch.zeros(0, device=args.device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device {args.device} cannot be used ({reason(error)}); try --device cpu") from None
    # What can be checked without the checkpoint comes before it: half a gigabyte may have to be downloaded.
    if args.web:
        require_port(args.port)
        page = launch(load_model(args.pretrain or published_checkpoint(), device, args.size, args.sam), args.port)
        print(f"{page.local_url} is the demo's page; Ctrl-C ends it", flush=True)
        page.block_thread()
        return
    sentences = [checked_sentence(sentence, "--text", "type what to segment") for sentence in args.text]
    photos = decoded(photo_files(args.img))
    first = next(photos)
    require_folder(args.output)
    segmenter = load_model(args.pretrain or published_checkpoint(), device, args.size, args.sam)
    segment_photos(segmenter, chain([first], photos), sentences, args.output, args.mask)


def photo_files(paths: list[Path]) -> list[Path]:
    """The files among `paths`, and the photos in the folders; UserError for a path or a folder without any."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"the photo {path} is not there; name another --img")
        files += photos_in(path) if path.is_dir() else [path]
    return files


def decoded(files: list[Path]) -> Iterator[tuple[Path, Image.Image]]:
    """The photos of `files` that can be decoded. The others are named, and UserError counts them after the last."""
    refused = 0
    for file in files:
        try:
            photo = read_photo(file, upright=True, hint="name another --img")
        except UserError as error:
            if len(files) == 1:
                raise
            print(f"demo.py: {one_line(error)}", file=sys.stderr)
            refused += 1
        else:
            yield file, photo
    if refused:
        raise UserError(f"{refused} of {len(files)} photos could not be read, see above")


def require_port(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        raise UserError(f"port {port} cannot be used; choose another --port") from None


def require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --output") from None


def published_checkpoint() -> Path:
    """The published checkpoint, downloaded where it is not there yet; UserError where that fails."""
    file = REPOSITORY / "weights" / f"{PUBLISHED}.pth"
    script = REPOSITORY / "scripts" / "download_weights.sh"
    if not file.exists() and subprocess.run(["bash", script, PUBLISHED], cwd=REPOSITORY).returncode:
        raise UserError(f"{file} could not be downloaded, see above; try again, or give a checkpoint with --pretrain")
    return file


def segment_photos(
    segmenter: Segmenter, photos: Iterable[tuple[Path, Image.Image]], sentences: list[str], output: Path, masks: bool
) -> None:
    """Write a picture for each photo and sentence, and the mask if `masks` is set; print the files' names.

    The picture shows the response or, where that has been cut, the mask.
    """
    written: set[Path] = set()
    for file, photo in photos:
        encoded, pixels = segmenter.encode(photo), np.asarray(photo)
        responses = segmenter.respond(encoded, sentences)
        of_sentences = zip(sentences, responses, segmenter.masks(encoded, responses), strict=True)
        for sentence, response, mask in of_sentences:
            picture = picture_path(output, file, sentence, written)
            written.add(picture)
            save_png(picture, mask_overlay(pixels, mask) if segmenter.cutter else heat_overlay(pixels, response))
            print(picture)
            if masks:
                png, runs = (picture.with_name(f"{picture.stem}_mask.{ending}") for ending in ("png", "json"))
                save_png(png, mask.astype(np.uint8) * 255)
                write_json(runs, {"sentence": sentence} | run_lengths(mask))
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
    """The running page, a `gradio.Blocks`, which this machine alone can reach."""
    from starlette.middleware import Middleware  # comes with Gradio
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Gradio asks the page whether it is there, which is nothing for a proxy.
    direct = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, direct))
    page = build_page(segmenter)
    # Other sites' pages cannot reach this one under names of their own (DNS rebinding).
    only_ours = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    page.launch(
        server_name="127.0.0.1",
        server_port=port or None,  # None: the first free one from 7860 on
        prevent_thread_lock=True,
        quiet=True,
        app_kwargs={"middleware": [only_ours]},
    )
    return page


def write_masks(
    folder: Path, photo: np.ndarray, sentences: list[str], responses: np.ndarray, masks: np.ndarray
) -> tuple[list[tuple[np.ndarray, str]], list[str]]:
    """What the page shows: for each sentence response and mask over the photo, with captions; the masks' files."""
    pictures, files = [], []
    for sentence, response, mask in zip(sentences, responses, masks, strict=True):
        caption = f"{sentence}: {mask.mean():.1%} of the photo"
        pictures += [(heat_overlay(photo, response), sentence), (mask_overlay(photo, mask), caption)]
        files.append(picture_path(folder, Path("mask"), sentence, files))
        save_png(files[-1], mask.astype(np.uint8) * 255)
    return pictures, [str(file) for file in files]


def build_page(segmenter: Segmenter):
    """The page, a `gradio.Blocks`: a photo and sentences in, pictures to see and masks to download out."""
    import gradio as gr  # an extra

    scratch = tempfile.TemporaryDirectory()  # for as long as the page
    os.environ["GRADIO_TEMP_DIR"] = scratch.name  # /tmp/gradio may be another user's; Gradio makes a missing one

    @lru_cache(maxsize=4)
    def encoded(file: str) -> EncodedPhoto:
        """Kept, so that another threshold or sentence does not encode the photo again."""
        return segmenter.encode(file)

    def segment(file: str | None, text: str, threshold: float, cut: bool = False, clicks: Clicks = NO_CLICKS):
        sentences = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if file is None or not sentences:
            raise gr.Error("Choose a photo and type a sentence.", print_exception=False)
        try:
            photo = read_photo(file, upright=True, hint="choose another photo")
            responses = segmenter.respond(encoded(file), sentences)
            masks = segmenter.masks(encoded(file), responses, threshold, cut, clicks)
        except UserError as error:
            words = str(error).replace(f"{Path(file).parent}/", "")  # which is Gradio's
            raise gr.Error(words, print_exception=False) from None
        folder = Path(tempfile.mkdtemp(dir=scratch.name))
        return write_masks(folder, np.asarray(photo), sentences, responses, masks)

    def add_click(clicks: Clicks, kind: str, event: gr.SelectData) -> Clicks:
        side = "inside" if kind == ADDS else "outside"
        return clicks._replace(**{side: (*getattr(clicks, side), tuple(event.index))})

    with gr.Blocks(title="TRIS", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", sources=["upload", "clipboard"], type="filepath")
                # Not decoded by Gradio: `read_photo` says what is wrong with it.
                photo.preprocess = lambda given: given and given.path
                text = gr.Textbox(lines=3, label="Sentences, one per line", placeholder="man on the right")
                threshold = gr.Slider(0, 1, segmenter.network.mask_threshold, label="Threshold of the mask")
                if segmenter.cutter:
                    cut = gr.Checkbox(
                        True, label="Cut with SAM, which has been trained with masks and knows no threshold"
                    )
                    kind = gr.Radio([ADDS, "takes away from it"], value=ADDS, label="A click on the photo")
                button = gr.Button("Segment", variant="primary")
            with gr.Column():
                pictures = gr.Gallery(label="Response and mask", columns=2, object_fit="contain", format="png")
                files = gr.Files(label="Masks")
        asked, given, shown = [button.click, threshold.release], [photo, text, threshold], [pictures, files]
        if segmenter.cutter:
            clicks = gr.State(NO_CLICKS)
            given += [cut, clicks]
            gr.on([photo.change, text.change], lambda: NO_CLICKS, None, clicks)  # another photo or sentence: none yet
            photo.select(add_click, [clicks, kind], clicks).then(segment, given, shown)
            asked.append(cut.input)
        gr.on(asked, segment, given, shown, api_name="segment")
    return page


if __name__ == "__main__":
    run_script(main)
