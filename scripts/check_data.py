"""Check a data set: the annotations, photos, masks and sentences of every split. Prints a line for each finding.

    python scripts/check_data.py --dataset refcocog --splitBy umd --refer_data_root ./data [--full]

Exit status: 0 nothing is wrong, 1 training or evaluation would fail or give other metrics, 2 wrong usage.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import numpy as np
from tqdm import tqdm

from clip.tokens import count_tokens
from dataset.artifacts import png_path, read_mask
from dataset.datasets import DATA_SETS, known_splits, load_splits
from dataset.photos import UPRIGHT, more_than_8_bits, opened, orientation
from dataset.references import Reference, Split
from dataset.samples import ground_truth
from toy.layouts import MARKER
from utils.errors import UserError, one_line, shown
from utils.log import log
from utils.options import Parser, add_data_set_options, query_length

DECODED_EVERY = 50  # photos, without --full; of the others only the header is read
EMPTY = "pseudo masks are empty, which teaches stage 2 that nothing is there; remove them where that is not so"
MARGIN = 2  # pixels that a polygon may lie outside its photo; published ones touch the border
TURNED = (  # not a fault
    "photos are stored turned (EXIF orientation) and used as stored; "
    "turn their pixels where masks or sentences mean the upright photo"
)


def leaves_photo(reference: Reference) -> bool:
    """Whether a polygon of the ref, whose mask is not damaged, lies more than `MARGIN` pixels outside the photo."""
    parts = reference.segmentation if isinstance(reference.segmentation, list) else []
    outlines = [part for part in parts if not isinstance(part, dict) and len(part) >= 6]
    polygons = [np.asarray(outline, float).reshape(-1, 2) for outline in outlines]
    end = np.array(reference.size[::-1]) + MARGIN
    return any((points < -MARGIN).any() or (points > end).any() for points in polygons)


def find_faults(split: Split, full: bool) -> Iterator[tuple[str, str]]:
    """Pairs of a fault, with what to do about it, and the photo or ref that has it. full: decode every photo."""
    hint = DATA_SETS[split.dataset].photo_hint
    photos = {reference.photo: reference for reference in split.references}
    for number, (photo, reference) in enumerate(tqdm(photos.items(), "photos", disable=None, leave=False)):
        try:
            with opened(split.photo_path(reference)) as picture:
                if reference.size not in (None, (picture.height, picture.width)):
                    yield f"photos have another size than annotated; {hint}", photo
                if more_than_8_bits(picture):
                    yield "photos have more than 8 bits per channel; convert them to 8 bits", photo
                if orientation(picture) in UPRIGHT:
                    yield TURNED, photo
                if full or number % DECODED_EVERY == 0:
                    picture.load()
        except FileNotFoundError:
            yield f"photos are not there; {hint}", photo
        except ValueError:
            yield f"photos cannot be decoded; {hint}", photo
    for reference in tqdm(split.references, "masks", disable=None, leave=False):
        if reference.segmentation is not None and not reference.absent:
            try:
                if not ground_truth(split, reference, reference.size).any():
                    yield "masks are empty; correct or remove their refs", str(reference.ref_id)
                if leaves_photo(reference):
                    yield "polygons leave their photo; draw them on the pixels as stored", str(reference.ref_id)
            except UserError:
                yield "masks are damaged; correct or remove their refs", str(reference.ref_id)


def find_mask_faults(split: Split, folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs of a fault of the pseudo masks in `folder` and the ref that has it."""
    for reference in tqdm(split.references, "pseudo masks", disable=None, leave=False):
        if not png_path(folder, reference.name).is_file():
            yield f"pseudo masks are not in {folder}; make them, or train stage 2 with --skip_missing", reference.name
            continue
        size = reference.size
        if size is None:
            with suppress(FileNotFoundError, ValueError), opened(split.photo_path(reference)) as photo:
                size = (photo.height, photo.width)
        try:
            if not read_mask(folder, reference.name, size).any():
                yield EMPTY, reference.name
        except UserError:
            yield "pseudo masks are damaged or have another shape than their photo; make them again", reference.name


def check(args: argparse.Namespace, name: str, published: int | None) -> Iterator[str]:
    """The lines to print about a split; what is wrong starts with WRONG. published: its number of refs, if known."""
    try:
        split = load_splits(args.dataset, args.data_root, args.split_by, [name])[name]
    except UserError as error:
        yield f"WRONG: {name} cannot be read: {error}"
        return
    refs, longest = split.references, args.max_query_len
    sentences = [sentence for reference in refs for sentence in reference.sentences]
    photos = {reference.photo for reference in refs}
    yield f"{name}: {len(refs):,} refs, {len(sentences):,} sentences, {len(photos):,} photos"
    if without := sum(reference.segmentation is None for reference in refs):
        yield f"note: {without:,} refs have no mask; they can be used for training and export, not for evaluation"
    if absent := sum(reference.absent for reference in refs):
        yield f"note: {absent:,} refs name nothing in their photo; training and export leave them out"
    if long := [sentence for sentence in sentences if count_tokens(sentence) > longest]:
        words = f"{len(long):,} sentences have more than {longest} tokens and are cut, as published"
        yield f"note: {words}; see --max_query_len ({shown(long[0])})"
    is_toy = (Path(args.data_root) / "refer" / args.dataset / MARKER).is_file()
    if published not in (None, len(refs)) and not is_toy:
        yield f"WRONG: the published split has {published:,} refs; fetch the annotations again"
    examples = defaultdict(list)
    found_faults = find_faults(split, args.full)
    if args.pseudo_path and name == "train":
        found_faults = chain(found_faults, find_mask_faults(split, args.pseudo_path))
    for fault, example in found_faults:
        examples[fault].append(example)
    for fault, found in examples.items():
        level = "note" if fault in (TURNED, EMPTY) else "WRONG"
        yield f"{level}: {len(found):,} {fault} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"


def main() -> None:
    parser = Parser(__doc__, "python scripts/check_data.py --dataset refcocog --splitBy umd")
    group = add_data_set_options(parser, tuple(DATA_SETS))
    group.add_argument("--max_query_len", type=query_length, default=20, help="tokens a sentence is cut to, 3 to 77")
    group.add_argument("--full", action="store_true", help=f"decode every photo, not only every {DECODED_EVERY}th")
    words = "also check the pseudo masks of the train split there, <name>.png for each ref"
    group.add_argument("--pseudo_path", type=Path, metavar="FOLDER", help=words)
    args = parser.parse_args()
    root, splits = Path(args.data_root), known_splits(args.dataset, args.split_by)
    if args.dataset == "jsonl":
        splits = {file.stem: None for file in sorted(root.glob("[!.]*.jsonl"))}
    if not root.is_dir() or not splits:
        raise UserError(f"{root} holds no data set; see data/README.md and docs/own_data.md")
    if args.pseudo_path and "train" not in splits:
        raise UserError(f"--pseudo_path is about train, and {root} has no train.jsonl; write it, or leave the flag out")
    faults = 0
    for name, published in splits.items():
        for line in check(args, name, published):
            log(one_line(line))
            faults += line.startswith("WRONG")
    log(f"{faults} lines above are WRONG" if faults else "nothing is wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    run_script(main)
