"""A data set examined as a whole: what is wrong with it, and what to do about each finding, instead of the first alone.

python validate.py --check_data --dataset refcocog --splitBy umd
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from clip.tokens import count_tokens
from dataset.known import known_data_set, known_splits
from dataset.loading import load_splits, require_folder
from dataset.photos import opened, read_photo
from dataset.references import Reference, Split
from dataset.samples import ground_truth
from dataset.toy.layouts import DESCRIPTION
from utils.errors import UserError, shown

EXAMPLES = 3  # of a finding
DECODED_EVERY = 50  # photos; of the others the header alone is read, unless all are asked for


class Finding(NamedTuple):
    """Something worth telling. `wrong`: training or evaluation would fail on it, or give other figures."""

    words: str
    cure: str
    wrong: bool = True

    def __str__(self) -> str:
        return f"{'WRONG' if self.wrong else 'note'}: {self.words}\n       {self.cure}"


def examine(dataset: str, root: Path, split_by: str, every_photo: bool, longest: int) -> Iterator[str | Finding]:
    """What is there, in words, and what is wrong with it. Raises UserError where there is nothing to examine.

    every_photo: decode all of them. longest: tokens that a sentence is cut to.
    """
    require_folder(root)
    for name, split, faults in _read(dataset, root, split_by, _split_names(dataset, root, split_by)):
        yield from _annotation_findings(name, faults)
        if isinstance(split, UserError):
            words = f"without these {split}" if faults else str(split)
            yield Finding(words, f"until then the split {name} cannot be used at all")
            continue
        yield _inventory(split)
        yield from _count_findings(split, known_splits(dataset, split_by).get(name), root)
        yield from _photo_findings(split, known_data_set(dataset).photo_cure, every_photo)
        yield from _mask_findings(split)
        yield from _sentence_findings(split, longest)


def _read(
    dataset: str, root: Path, split_by: str, names: list[str]
) -> Iterator[tuple[str, Split | UserError, list[UserError]]]:
    """Each split, or why there is none, with the errors of its entries; one at a time only where there are errors."""
    try:
        yield from ((name, split, []) for name, split in load_splits(dataset, root, split_by, names).items())
    except UserError:
        for name in names:
            yield _read_one(dataset, root, split_by, name)


def _read_one(dataset: str, root: Path, split_by: str, name: str) -> tuple[str, Split | UserError, list[UserError]]:
    faults: list[UserError] = []
    try:
        return name, load_splits(dataset, root, split_by, [name], faults.append)[name], faults
    except UserError as error:
        return name, error, faults


def _split_names(dataset: str, root: Path, split_by: str) -> list[str]:
    if dataset == "jsonl":
        names = sorted(file.stem for file in root.glob("*.jsonl"))
        if not names:
            raise UserError(f"{root} holds no .jsonl file; write train.jsonl first (docs/own_data.md)")
        return names
    return list(known_splits(dataset, split_by))


def _inventory(split: Split) -> str:
    sentences = sum(len(reference.sentences) for reference in split.references)
    return f"{split.name}: {len(split.references):,} refs, {sentences:,} sentences, {len(_photos(split)):,} photos"


def _photos(split: Split) -> dict[str, Reference]:
    """A ref of each photo."""
    return {reference.photo: reference for reference in split.references}


def _annotation_findings(name: str, faults: list[UserError]) -> Iterator[Finding]:
    if faults:
        examples = "".join(f"\n         {fault}" for fault in faults[:EXAMPLES])
        words = f"{len(faults):,} entries of {name} cannot be used, and training would end at the first:{examples}"
        yield Finding(words, "correct or remove them, or fetch the annotations again where they come from the web")


def _count_findings(split: Split, known: int | None, root: Path) -> Iterator[Finding]:
    found = len(split.references)
    if known in (None, found) or _is_toy_world(root / "refer" / split.dataset / "instances.json"):
        return
    words = f"{split.name} has {found:,} refs; the published split has {known:,}"
    yield Finding(words, "fetch refs(...).p again; figures on other refs cannot be compared with published ones")


def _is_toy_world(instances: Path) -> bool:
    with instances.open("rb") as file:
        return DESCRIPTION.encode() in file.read(200)  # it is the first thing that the toy world writes there


def _photo_findings(split: Split, cure: str, every_photo: bool) -> Iterator[Finding]:
    problems: dict[str, list[str]] = {}
    photos = _photos(split)
    for number, (photo, reference) in enumerate(_progress(photos.items(), f"photos of {split.name}")):
        problem = _photo_problem(split, reference, decode=every_photo or number % DECODED_EVERY == 0)
        if problem:
            problems.setdefault(problem, []).append(photo)
    for problem, files in problems.items():
        yield Finding(f"{len(files):,} of {len(photos):,} photos of {split.name} {problem} ({_some(files)})", cure)


def _photo_problem(split: Split, reference: Reference, decode: bool) -> str | None:
    path = split.photo_path(reference)
    try:
        with opened(path) as photo:
            size = (photo.height, photo.width)
        if decode:
            read_photo(path)
    except FileNotFoundError:
        return "are not there"
    except (ValueError, UserError):
        return "cannot be decoded"
    described = (reference.height or size[0], reference.width or size[1])  # as the annotations say, where they do
    return None if described == size else "have another size than the annotations say"


def _mask_findings(split: Split) -> Iterator[Finding]:
    annotated = [reference for reference in split.references if reference.segmentation is not None]
    if len(annotated) < len(split.references):
        words = f"{len(split.references) - len(annotated):,} refs of {split.name} have no mask"
        yield Finding(words, "they can be trained on and exported; to evaluate the split, add masks", wrong=False)
    problems: dict[str, list[str]] = {}
    for reference in _progress(annotated, f"masks of {split.name}"):
        try:
            mask = ground_truth(split, reference, (reference.height, reference.width))
            if not mask.any():
                problems.setdefault("are empty", []).append(shown(reference.ref_id))
        except UserError:
            problems.setdefault("are damaged", []).append(shown(reference.ref_id))
    for problem, refs in problems.items():
        words = f"{len(refs):,} of {len(annotated):,} masks of {split.name} {problem} (refs {_some(refs)})"
        yield Finding(words, "correct these refs or remove them; an empty mask counts as a miss for any answer")


def _sentence_findings(split: Split, longest: int) -> Iterator[Finding]:
    sentences = [text for reference in split.references for text in reference.sentences]
    lengths = [count_tokens(text) for text in _progress(sentences, f"sentences of {split.name}")]
    long = [text for text, length in zip(sentences, lengths, strict=True) if length > longest]
    if long:
        words = f"{len(long):,} of {len(sentences):,} sentences of {split.name} have more than {longest} tokens"
        cure = f"they are cut there, as published; the longest has {max(lengths)}, see --max_query_len (at most 77)"
        yield Finding(f"{words} ({shown(long[0])})", cure, wrong=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")


def _progress(items: Iterable, title: str) -> Iterable:
    return tqdm(items, title, disable=None, leave=False)


def report(findings: Iterable[str | Finding], say: Callable[[str], None]) -> int:
    """Tell what was found as it is found, and how much is wrong; the exit status: 0 where nothing is, else 1."""
    counts: Counter[bool] = Counter()
    for found in findings:
        say(str(found))
        counts.update([found.wrong] if isinstance(found, Finding) else [])
    if counts[True]:
        say(f"{counts[True]} findings are WRONG; below each stands what to do about it")
    else:
        say("nothing is wrong")
    return int(bool(counts[True]))
