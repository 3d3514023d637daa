"""Masks of many photos, each with its own sentences, in one COCO file; beside it a sheet of some of them, by score.

python predict.py --sentences mydata/todo.jsonl --pretrain output/mydata/stage2/ckpt.pth --output masks.json
"""

from utils.start import run_script

import argparse
import hashlib
import os
from itertools import product
from pathlib import Path

from dataset.checks import checked_sentence
from dataset.datasets import DATA_SETS, load_splits
from dataset.jsonl import read_jsonl
from dataset.photos import photos_in
from dataset.predictions import finished_batches, join_parts, part_files, parts_folder, remove_parts, stamp_path
from dataset.references import Reference, Split
from dataset.samples import EvalPhotos, eval_loader
from model.build import absence_limit
from model.prediction import draw_sheet, predict
from model.segmenter import load_model
from utils.distributed import all_gather, barrier, init_processes, is_main
from utils.errors import UserError
from utils.files import lock_folder
from utils.log import log
from utils.options import (
    Parser,
    add_absence_option,
    add_data_set_options,
    add_sam_option,
    add_workers_option,
    input_size,
    positive_int,
)
from utils.pictures import optional, save_png
from utils.resume import fingerprint, start_pass


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    words = "photos and their sentences, JSON lines as for training; a mask in them is not looked at"
    parser.add_argument("--sentences", type=Path, metavar="FILE", help=words)
    words = "instead: the photos of a folder, their pixels as stored, not upright, each with the sentences of --text"
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help=words)
    parser.add_argument("--text", nargs="+", metavar="SENTENCE", help="the sentences for --photos")
    add_data_set_options(parser, tuple(DATA_SETS)).add_argument(
        "--test_split", default="val", metavar="NAME", help="the split of --dataset"
    )
    parser.set_defaults(dataset=None)
    parser.add_argument("--pretrain", type=Path, metavar="FILE", required=True, help="a checkpoint of either stage")
    words = "the COCO file; a mask's score is the mean inside it of the logits' sigmoid, of stage 1 of the response"
    parser.add_argument("--output", type=Path, default="masks.json", metavar="FILE", help=words)
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="also write each mask there, as a PNG")
    words = "whether a sentence that finds nothing has an annotation, of area and score 0"
    parser.add_argument("--empty", choices=["keep", "drop"], default="keep", help=words)
    add_absence_option(parser)
    add_sam_option(parser)
    parser.add_argument("--size", type=input_size, help="photos are resized to SIZE x SIZE (default: as in training)")
    words = "photos at a time; another number may change masks by a pixel"
    parser.add_argument("--batch_size", type=positive_int, default=4, help=words)
    add_workers_option(parser)
    words = "go on with a run that was stopped, and try photos again that were skipped"
    parser.add_argument("--resume", action="store_true", help=words)
    args = parser.parse_args()
    if sum(map(bool, (args.sentences, args.photos, args.dataset))) != 1:
        parser.error("give one of --sentences, --photos and --dataset")
    if bool(args.photos) != bool(args.text):
        parser.error("--photos and --text belong together")
    if args.output.suffix != ".json" or args.output.is_dir():
        parser.error(f"--output {args.output} is not the name of a .json file")
    return args


def main() -> None:
    args = parse_args()
    device = init_processes()
    split = photos_to_segment(args)
    segmenter = load_model(args.pretrain, device, args.size, args.sam)
    limit = absence_limit(segmenter.network, args.absent_below)
    photos = EvalPhotos(split, segmenter.size, segmenter.query_length, masks=False, faults=True)
    parts = parts_folder(args.output)
    with lock_folder(parts, is_main()):
        start_pass(stamp_path(parts), settings(args, split, segmenter.size), part_files(parts), args.resume)
        finished = all_gather(finished_batches(parts))[0]  # before anybody writes: all must leave out the same
        loader = eval_loader(photos, args.batch_size, args.num_workers, finished)
        predict(segmenter, loader, parts, args.masks, args.empty == "keep", limit)
        barrier()
        skipped = finish(photos, parts, args.output) if is_main() else 0
    barrier()
    if skipped:
        words = f"{skipped} of {len(photos)} photos were skipped, see above"
        raise UserError(f"{words}; correct them, and run the same command with --resume")


def photos_to_segment(args: argparse.Namespace) -> Split:
    """The photos with their sentences; UserError where none of them is there."""
    if args.sentences:
        split = read_jsonl(args.sentences, masks=False)
    elif args.photos:
        split = same_sentences(args.photos, args.text)
    else:
        split = load_splits(args.dataset, args.data_root, args.split_by, [args.test_split])[args.test_split]
    # Path.is_file() is an error for a name that is too long.
    if not any(os.path.isfile(split.photo_path(reference)) for reference in split.references):  # noqa: PTH113
        raise UserError(
            f"{split.image_root} holds none of the photos, such as {split.references[0].photo}; correct the paths"
        )
    return split


def same_sentences(folder: Path, sentences: list[str]) -> Split:
    """The photos of a folder, with a ref for each sentence."""
    texts = [checked_sentence(sentence, "--text") for sentence in sentences]
    pairs = product(enumerate(file.name for file in photos_in(folder)), texts)
    references = [Reference(i, i, number, name, None, (text,)) for i, ((number, name), text) in enumerate(pairs)]
    return Split("photos", folder.name, folder, references)


def settings(args: argparse.Namespace, split: Split, size: int) -> dict[str, str | int | None]:
    """What a run that is resumed must share with the one it continues, under names for a message."""
    sentences = "".join(f"{reference.photo!r} {reference.sentences!r}" for reference in split.references)
    return {
        "a checkpoint of hash": fingerprint([args.pretrain])[:16],
        "photos and sentences of hash": hashlib.sha256(sentences.encode()).hexdigest()[:16],
        "--size": size,
        "--batch_size": args.batch_size,
        "--empty": args.empty,
        "--absent_below": args.absent_below,
        "--masks": args.masks and str(args.masks),
        "--sam": args.sam,
    }


def finish(photos: EvalPhotos, parts: Path, output: Path) -> int:
    """Write the COCO file and the sheet; returns how many photos were skipped. Without any the parts are removed."""
    found, masks = join_parts(parts, output)
    log(f"{output}: {masks} masks of {found} photos")
    sheet = output.with_suffix(".png")
    with optional(sheet):
        if masks:
            save_png(sheet, draw_sheet(photos.split.image_root, parts))
            log(f"{sheet}: some of them, by score")
    if found == len(photos):
        remove_parts(parts)
    return len(photos) - found


if __name__ == "__main__":
    run_script(main)
