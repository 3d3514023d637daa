"""Bad inputs and the one line that each gets: the source of docs/bad_input.md and of tests/test_bad_input.py.

    python -m tests.bad_input     # writes the page anew

In a line `…` stands for whatever depends on the machine: folders, and words of libraries.
"""

import copyreg
import io
import json
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from clip import build_clip
from dataset.artifacts import read_images, read_map, read_mask, write_scores
from dataset.jsonl import FORM
from dataset.loading import load_splits
from dataset.photos import read_photo
from dataset.refcoco import DOWNLOAD as PUT
from dataset.references import Reference, Split
from dataset.referit import DOWNLOAD as PUT_REFERIT
from dataset.samples import ground_truth
from IRNet.checkpoint import CURE as TRAIN_IRNET
from IRNet.checkpoint import load_network as load_irnet
from model.build import load_network
from tests.golden import REFERENCE
from utils.files import read_json
from utils.pictures import png

PAGE = Path(__file__).parent.parent / "docs" / "bad_input.md"
CURE = "train it"
EXTENSION = 0x7E  # an extension code that the trials register for os.system

# The parts of a line that many share.
REFS_FILE, INSTANCES_FILE = "refer/refcocog/refs(umd).p", "refer/refcocog/instances.json"
REF, REF_401 = f"{REFS_FILE}: ref 467", f"{REFS_FILE}: ref 401"
MASK, CORRECT = "the mask of ref 467 (photos/a.jpg) is damaged", "correct or remove it"
EXPORT = "export it again with validate.py --prms --cam_save_dir ..."
WRITE = "write it with validate.py --prms --cam_save_dir ... --name_save_dir ..."
MAKE_MASKS = "make it with IRNet/run_sample_refer.py --make_ins_seg_pass True"
NAMED, PATH = "write a number, or a short name without / or \\", "correct the path or the file"
BOX = "train.jsonl:2 has an empty or damaged mask or box"
HELP = "--help lists the flags"
CHECKPOINT, TOY = "the checkpoint ckpt.pth", "is it a checkpoint with --backbone toy-RN?"

Trial = Callable[[Path], object]  # plants a bad input in a folder, which is the working folder, and reads it


class Case(NamedTuple):
    """A bad input that is read in a process: `trial` must raise UserError with `line`."""

    name: str
    line: str
    trial: Trial


class Mistake(NamedTuple):
    """A command that must end with status 2 and `line`; see tests/test_bad_input.py for the words in braces."""

    name: str
    line: str
    words: str


def matches(line: str, told: str) -> bool:
    """Whether what was told is the documented line."""
    return re.fullmatch(".*".join(map(re.escape, line.split("…"))), told) is not None


# --- Pickles that want to run something: they would leave a file RAN in the working folder.


class Hostile:
    def __reduce__(self) -> tuple:
        return (open, ("RAN", "w"))


GLOBAL = b"cposix\nsystem\n(S'touch RAN'\ntR."
PYTHON2 = b'(lp0\nc__builtin__\neval\np1\n(S\'open("RAN","w")\'\np2\ntp3\nRp4\na.'
EXTENSION_CODE = b"\x80\x02\x82" + bytes([EXTENSION]) + b"(U\x09touch RANtR."
NESTED = pickle.dumps([{"split": [{"deep": (1, Hostile())}]}], protocol=2)
INSTANCE = b"(S'touch RAN'\niposix\nsystem\n."
MEMO = b"\x80\x02]r\xff\xff\xff\x7f."
DEEP = b"[" * 100_000


def with_extension(trial: Trial) -> Trial:
    """The trial while the extension code means os.system, as a library could have said."""

    def extended(folder: Path) -> object:
        copyreg.add_extension("posix", "system", EXTENSION)
        try:
            return trial(folder)
        finally:
            copyreg.remove_extension("posix", "system", EXTENSION)

    return extended


# --- Annotations


def refcocog(folder: Path, refs: bytes | None = None, instances: bytes | None = None) -> dict[str, Split]:
    """The fixture read with one of its files replaced."""
    annotations = folder / "refer" / "refcocog"
    shutil.copytree(REFERENCE / "refer_fixture" / "refer" / "refcocog", annotations)
    for name, content in (("refs(umd).p", refs), ("instances.json", instances)):
        if content is not None:
            (annotations / name).write_bytes(content)
    return load_splits("refcocog", ".", "umd", ["train", "val", "test"])


def fixture(name: str) -> bytes:
    return (REFERENCE / "refer_fixture" / "refer" / "refcocog" / name).read_bytes()


def refs(change: Callable[[list[dict]], object] | bytes) -> Trial:
    """RefCOCOg with other bytes as its refs, or with its refs changed by a function."""

    def trial(folder: Path) -> object:
        if isinstance(change, bytes):
            return refcocog(folder, refs=change)
        content = pickle.loads(fixture("refs(umd).p"))
        change(content)
        return refcocog(folder, refs=pickle.dumps(content, protocol=2))

    return trial


def first_ref(**changed: Any) -> Trial:
    return refs(lambda content: content[0].update(changed))


def instances(change: Callable[[dict], object] | bytes) -> Trial:
    """RefCOCOg with other bytes as its instances.json, or with that changed by a function."""

    def trial(folder: Path) -> object:
        if isinstance(change, bytes):
            return refcocog(folder, instances=change)
        content = json.loads(fixture("instances.json"))
        change(content)
        return refcocog(folder, instances=json.dumps(content).encode())

    return trial


def every(table: str, **changed: Any) -> Trial:
    """RefCOCOg with these values in every image or annotation."""
    return instances(lambda content: [entry.update(changed) for entry in content[table]])


RUNS = {"size": [20, 50], "counts": "`<hb0"}  # 400 pixels without, 600 with
ANNOTATION = {"query": ["a", "b"], "bbox": [[0, 0, 10, 6]], "segmentation": [RUNS]}


def referit(content: Any) -> Trial:
    """ReferIt with these bytes, or this value pickled, as the annotations of test."""

    def trial(folder: Path) -> object:
        (folder / "annotations").mkdir()
        written = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
        (folder / "annotations" / "test.pickle").write_bytes(written)
        return load_splits("referit", ".", "", ["test"])

    return trial


def referit_image(image_id: Any = "1", **changed: Any) -> Trial:
    return referit({image_id: {"annotations": [ANNOTATION | changed]}})


PHOTO = {"image": "a.jpg", "sentences": ["x"]}


def jsonl(entry: Any) -> Trial:
    """Your own data whose second line is this text, or this value as JSON; a.jpg has 8 x 6 pixels."""

    def trial(folder: Path) -> object:
        Image.new("RGB", (8, 6)).save(folder / "a.jpg")
        Image.new("L", (3, 3), 255).save(folder / "small.png")
        (folder / "huge.png").write_bytes(png_header(100_000, 100_000))
        line = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
        (folder / "train.jsonl").write_bytes(json.dumps(PHOTO).encode() + b"\n" + line + b"\n")
        return load_splits("jsonl", ".", "", ["train"])

    return trial


def segmentation(value: Any) -> Trial:
    """An annotation's segmentation for a photo of 8 x 6 pixels."""
    reference = Reference(0, 467, 9, "a.jpg", 6, 8, ("x",), (0, 0, 1, 1), value)
    return lambda folder: ground_truth(Split("refcocog", "val", Path("photos"), [reference]), reference, (6, 8))


def runs(counts: Any, size: Any = (6, 8)) -> Trial:
    return segmentation({"size": list(size), "counts": counts})


# --- Photos, arrays, lists of names


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that promises this size and holds nothing. A side has 16 bits: 65,535 at most."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    content = file.getvalue()
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


def stored(name: str, content: bytes | None, read: Callable[[str], object]) -> Trial:
    """`read` of a file with this content, or of one that is not there."""

    def trial(folder: Path) -> object:
        if content is not None:
            (folder / name).write_bytes(content)
        return read(name)

    return trial


def photo(content: bytes | None, name: str = "photo.jpg") -> Trial:
    return stored(name, content, read_photo)


def half_a_photo() -> bytes:
    whole = (REFERENCE / "refer_fixture/train2014/COCO_train2014_000000000222.jpg").read_bytes()
    return whole[: len(whole) // 2]


def picture(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def array(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def response(content: bytes | None) -> Trial:
    return stored("1_9.npy", content, lambda _: read_map(".", "1_9"))


def huge_array() -> bytes:
    return array(np.zeros((2, 2))).replace(b"(2, 2)", b"(100000, 100000)", 1)


def names(listed: Any, photos: Any = None) -> Trial:
    """A list of names, and the table of photos beside it."""

    def trial(folder: Path) -> object:
        (folder / "toy_names.json").write_text(json.dumps(listed))
        if photos is not None:
            (folder / "toy_images.json").write_text(json.dumps(photos))
        return read_images("toy_names.json")

    return trial


# --- Checkpoints


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def checkpoint(content: bytes | None) -> Trial:
    return stored("ckpt.pth", content, lambda name: load_network(name, CURE))


def unzipped(content: Any) -> bytes:
    """A checkpoint in torch's format from before 1.6, which is a chain of pickles."""
    return saved(content, _use_new_zipfile_serialization=False)


def with_pickle(content: bytes) -> bytes:
    """A checkpoint in torch's zip format whose pickle is this."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ckpt/data.pkl", content)
        archive.writestr("ckpt/version", "3\n")
    return file.getvalue()


def toy_state() -> dict[str, torch.Tensor]:
    """A network of stage 1 with the toy backbone, every tensor one number on disk."""
    from model.stage1 import ResponseNetwork

    network = ResponseNetwork(build_clip("toy", pretrained=False), hidden_dim=8)
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in network.state_dict().items()}


ARCHITECTURE = {"backbone": "toy-RN", "hidden_dim": 8, "prompt_weight": 0.1}


def toy_checkpoint(change: Callable[[dict], object], **described: Any) -> Trial:
    """A checkpoint of a small network whose tensors a function changed."""

    def trial(folder: Path) -> object:
        state = toy_state()
        change(state)
        content = saved({"model": state, "architecture": ARCHITECTURE | described})
        return checkpoint(content)(folder)

    return trial


def toy_tensor(name: str, value: Any) -> Trial:
    return toy_checkpoint(lambda state: state.update({name: value}))


def unchanged(_: dict) -> None:
    pass


def irnet(content: bytes | None) -> Trial:
    return stored("res50_irn.pth", content, lambda name: load_irnet(Path(name)))


COMMANDS = [
    Mistake(
        "size 0",
        f"train_stage1.py: argument --size: '0' is not a whole number of 64 or more; {HELP}",
        "train_stage1.py --size 0",
    ),
    Mistake(
        "an unknown flag",
        f"train_stage1.py: unrecognized arguments: --bath_size 3; {HELP}",
        "train_stage1.py --bath_size 3",
    ),
    Mistake(
        "an abbreviated flag",
        f"train_stage1.py: unrecognized arguments: --batch 3; {HELP}",
        "train_stage1.py --batch 3",
    ),
    Mistake(
        "an unknown data set",
        f"validate.py: argument --dataset: invalid choice: 'coco' (choose from …); {HELP}",
        "validate.py --dataset coco",
    ),
    Mistake(
        "an unknown data set for the pipeline",
        "run_pipeline.py: there is no data set 'coco'; known are refcoco, refcoco+, refcocog, referit, jsonl",
        "scripts/run_pipeline.py coco - {empty}",
    ),
    Mistake(
        "no data",
        "validate.py: the data folder /nowhere is not there; see data/README.md, or run: bash scripts/quickstart.sh",
        "validate.py --refer_data_root /nowhere",
    ),
    Mistake(
        "a data folder without annotations",
        "validate.py: …/refs(unc).p is not there; put the refer annotations there (data/README.md shows the tree)",
        "validate.py --refer_data_root {empty}",
    ),
    Mistake(
        "an unknown split",
        "validate.py: …/refs(umd).p has no split 'testC'; it has test, train, val",
        "validate.py {data} --test_split testC",
    ),
    Mistake(
        "no split",
        f"validate.py: argument --test_split: ',' names nothing; write for example val,testA; {HELP}",
        "validate.py --test_split ,",
    ),
    Mistake(
        "nothing to evaluate",
        "validate.py: --test_split none leaves nothing to evaluate; name a split",
        "validate.py --test_split none",
    ),
    Mistake(
        "a demo of nothing",
        f"demo.py: give --img and --text, or --web; {HELP}",
        "demo.py --img {photo}",
    ),
    Mistake(
        "a comparison without report",
        "validate.py: --compare needs --report, the folder that the differences are written to",
        "validate.py {data} --compare x.json",
    ),
    Mistake(
        "scores of pseudo masks",
        "validate.py: --cam_format native keeps stage 1's scores, --pseudo_path has none; leave one of them out",
        "validate.py {data} --pseudo_path {empty} --cam_format native",
    ),
    Mistake(
        "no checkpoint",
        "validate.py: the checkpoint …/ckpt.pth is not there; train it, or put a published one there "
        "(weights/README.md)",
        "validate.py {data} --output {empty}",
    ),
    Mistake(
        "an unknown backbone",
        "train_stage1.py: there is no CLIP named 'RN49'; known are …",
        "train_stage1.py {data} --backbone RN49 --batch_size 4",
    ),
    Mistake(
        "another backbone",
        "validate.py: …/ckpt.pth was trained with --backbone toy, not clip-RN101; leave it out",
        "validate.py {data} --output {trained} --backbone clip-RN101",
    ),
    Mistake(
        "too many channels",
        "train_stage1.py: --hidden_dim 100000 is not a whole number from 1 to 4096",
        "train_stage1.py {data} --backbone toy --batch_size 4 --hidden_dim 100000",
    ),
    Mistake(
        "a batch that is too large",
        "train_stage1.py: the training split has … refs, fewer than a batch (999); lower --batch_size",
        "train_stage1.py {data} --backbone toy --batch_size 999",
    ),
    Mistake(
        "nothing to resume",
        "train_stage1.py: the checkpoint …/ckpt_last.pth is not there; train without --resume first",
        "train_stage1.py {data} --backbone toy --batch_size 4 --resume --output {empty}",
    ),
    Mistake(
        "a query of two tokens",
        f"validate.py: argument --max_query_len: '2' is not a whole number from 3 to 77; {HELP}",
        "validate.py --max_query_len 2",
    ),
    Mistake(
        "no pseudo masks",
        "train_stage2.py: … of … refs have no pseudo mask in … (…); make them with "
        "scripts/make_pseudo_masks.sh, or train without these refs: --skip_missing",
        "train_stage2.py {data} --pseudo_path {empty}",
    ),
    Mistake(
        "a demo without checkpoint",
        "demo.py: the checkpoint …/none.pth is not there; train it, or put a published one there (weights/README.md)",
        "demo.py --img {photo} --text x --pretrain {empty}/none.pth",
    ),
    Mistake(
        "a demo without photo",
        "demo.py: the photo /none.jpg is not there; name another --img",
        "demo.py --img /none.jpg --text x --pretrain {trained}/ckpt.pth",
    ),
    Mistake(
        "a demo with an empty sentence",
        "demo.py: the list of sentences has an empty sentence; give another sentence",
        "demo.py --img {photo} --text '' --pretrain {trained}/ckpt.pth",
    ),
    Mistake(
        "a demo with half a photo",
        "demo.py: the photo …/cut.jpg cannot be decoded (image file is truncated …); name another --img",
        "demo.py --img {cut} --text x --pretrain {trained}/ckpt.pth",
    ),
    Mistake(
        "a demo of 100,000 x 100,000 pixels",
        "demo.py: the photo …/huge.png cannot be decoded (it claims more than 100,000,000 pixels); name another --img",
        "demo.py --img {huge} --text x --pretrain {trained}/ckpt.pth",
    ),
    Mistake(
        "a demo in an empty folder",
        "demo.py: the folder …/empty holds no photo (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff); name another --img",
        "demo.py --img {empty} --text x --pretrain {trained}/ckpt.pth",
    ),
    Mistake(
        "an unknown device",
        "demo.py: the device tpu9 cannot be used (…); try --device cpu",
        "demo.py --img {photo} --text x --device tpu9",
    ),
    Mistake(
        "half a photo in training",
        "train_stage1.py: the photo …COCO_train2014_000000000001.jpg cannot be decoded (image file is "
        "truncated …); fetch it again",
        "train_stage1.py {broken} --backbone toy --batch_size 4 --output {empty}/out",
    ),
    Mistake(
        "an absent photo in evaluation",
        "validate.py: the photo …COCO_train2014_000000000009.jpg is not there; complete the image "
        "folder (data/README.md)",
        "validate.py {broken} --test_split test --output {trained} --json {empty}/out.json",
    ),
    Mistake(
        "no loss at all",
        "train_stage1.py: every loss is switched off; give --w1, --w4 or --w5 (with --negative_samples) a weight "
        f"above 0; {HELP}",
        "train_stage1.py {data} --w1 0 --w4 0 --negative_samples 0",
    ),
    Mistake(
        "a seed of 20 digits",
        f"train_stage1.py: argument --seed: '{10**19}' is not a whole number from 0 to 4294967295; {HELP}",
        f"train_stage1.py --seed {10**19}",
    ),
    Mistake(
        "a board folder that is a file",
        "train_stage1.py: cannot write to …: …; choose another --board_folder",
        "train_stage1.py {data} --backbone toy --batch_size 4 --output {empty}/out --board_folder {photo}",
    ),
    Mistake(
        "a backbone without a pyramid",
        "train_stage1.py: this backbone has no image pyramid; choose clip-RN50, clip-RN101 or clip-RN50x4",
        "train_stage1.py {data} --backbone toy-ViT --batch_size 4 --output {empty}/out",
    ),
    Mistake(
        "another prompt weight",
        "validate.py: …/ckpt.pth was trained with --attn_multi 0.1, not 0.7; leave it out",
        "validate.py {data} --output {trained} --attn_multi 0.7",
    ),
    Mistake(
        "PRMS of pseudo masks",
        "validate.py: --prms selects among response maps, --pseudo_path has one mask a ref; leave one of them out",
        "validate.py {data} --pseudo_path {empty} --prms",
    ),
    Mistake(
        "a format of no maps",
        "validate.py: --cam_format needs --cam_save_dir, the folder that the maps are written to",
        "validate.py {data} --cam_format native",
    ),
    Mistake(
        "an output that is a file",
        "train_stage1.py: cannot write to ……: File exists; choose another folder",
        "train_stage1.py {data} --backbone toy --batch_size 4 --output {photo}",
    ),
    Mistake(
        "a walk of 2^64 steps",
        f"run_sample_refer.py: argument --exp_times: '64' is not a whole number from 0 to 12; {HELP}",
        "IRNet/run_sample_refer.py --exp_times 64",
    ),
]

REFS = [
    Case("a global in refs(umd).p", f"{REFS_FILE} is refused: it wants to import 'posix.system'; {PUT}", refs(GLOBAL)),
    Case(
        "a reduce in protocol 4",
        f"{REFS_FILE} is refused: it wants to import 'io.open'; {PUT}",
        refs(pickle.dumps([Hostile()], protocol=4)),
    ),
    Case("a nested object", f"{REFS_FILE} is refused: it wants to import 'io.open'; {PUT}", refs(NESTED)),
    Case(
        "Python 2's protocol 0", f"{REFS_FILE} is refused: it wants to import '__builtin__.eval'; {PUT}", refs(PYTHON2)
    ),
    Case(
        "an instance of protocol 0", f"{REFS_FILE} is refused: it wants to import 'posix.system'; {PUT}", refs(INSTANCE)
    ),
    Case(
        "an extension code",
        f"{REFS_FILE} is refused: it wants to import 'posix.system'; {PUT}",
        with_extension(refs(EXTENSION_CODE)),
    ),
    Case("an unknown extension code", f"{REFS_FILE} is refused: …; {PUT}", refs(b"\x80\x02\x82\x01.")),
    Case("a persistent id", f"{REFS_FILE} is refused: …; {PUT}", refs(b"P1\n.")),
    Case(
        "a codec that is not Latin-1",
        f"{REFS_FILE} is refused: the encoding 'rot13' is not used by annotations; {PUT}",
        refs(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R."),
    ),
    Case(
        "attributes for a function",
        f"{REFS_FILE} is refused: …; {PUT}",
        refs(b"c_codecs\nencode\n(N}X\x0c\0\0\0__defaults__)stb."),
    ),
    Case("a memo of 32 GB", f"{REFS_FILE} is refused: …; {PUT}", refs(MEMO)),
    Case(
        "a string of 4 EB", f"{REFS_FILE} is refused: …; {PUT}", refs(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x3fx.")
    ),
    Case("half a bytearray", f"{REFS_FILE} is refused: …; {PUT}", refs(b"\x80\x05\x96\xff\0\0\0\0\0\0\0abc")),
    Case("an empty pickle", f"{REFS_FILE} is refused: …; {PUT}", refs(b"")),
    Case("half a pickle", f"{REFS_FILE} is refused: …; {PUT}", refs(fixture("refs(umd).p")[:1000])),
    Case("text instead of a pickle", f"{REFS_FILE} is refused: …; {PUT}", refs(b"hello world")),
    Case("refs that are no list", f"{REFS_FILE} is no list of refs; {PUT}", refs(pickle.dumps({"a": 1}))),
    Case(
        "a ref that is no dictionary",
        f"{REFS_FILE} is no list of refs; {PUT}",
        refs(lambda content: content.insert(0, 3)),
    ),
    Case(
        "a ref without split",
        f"{REFS_FILE}: a ref without a usable 'split'; {PUT}",
        refs(lambda content: content[0].pop("split")),
    ),
    Case(
        "the same ref_id twice",
        f"{REFS_FILE} has the ref_id 467 twice; remove one of the two",
        refs(lambda content: content[1].update(ref_id=content[0]["ref_id"])),
    ),
    Case(
        "the same sent_id twice",
        f"{REF} has the sentence 11 twice; remove one of the two",
        refs(lambda content: content[0]["sentences"].append(content[0]["sentences"][0])),
    ),
    Case(
        "a ref_id that is a path",
        f"{REFS_FILE}: ref '../../etc/passwd' has no usable ref_id ('../../etc/passwd'); {NAMED}",
        first_ref(ref_id="../../etc/passwd"),
    ),
    Case(
        "an absent image", f"{REF} names image 77, which {INSTANCES_FILE} does not have; {PUT}", first_ref(image_id=77)
    ),
    Case(
        "an image_id that is a list",
        f"{REF} or its annotation is damaged (TypeError: …); {PUT}",
        first_ref(image_id=[[77]]),
    ),
    Case(
        "an absent annotation",
        f"{REF} names annotation 77, which {INSTANCES_FILE} does not have; {PUT}",
        first_ref(ann_id=77),
    ),
    Case(
        "an empty sentence",
        f"{REF} has an empty sentence; remove it from the annotations",
        first_ref(sentences=[{"sent": " ", "sent_id": 1}]),
    ),
    Case(
        "a sentence that is a number",
        f"{REF} has a sentence that is no text (3); remove it from the annotations",
        first_ref(sentences=[{"sent": 3, "sent_id": 1}]),
    ),
    Case(
        "a sentence of 1 MB",
        f"{REF} has a sentence of 1000000 characters; shorten it to at most 2000",
        first_ref(sentences=[{"sent": "a" * 10**6, "sent_id": 1}]),
    ),
    Case(
        "half a Unicode character",
        f"{REF} has a sentence that is no valid Unicode; write it as UTF-8",
        first_ref(sentences=[{"sent": "a \udcff", "sent_id": 1}]),
    ),
    Case(
        "a ref without sentences",
        f"{REF} has no list of sentences; give it at least one, or remove it",
        first_ref(sentences=[]),
    ),
    Case(
        "100,000 sentences",
        f"{REF} has 100000 sentences; leave at most 1000",
        first_ref(sentences=[{"sent": "a", "sent_id": i} for i in range(10**5)]),
    ),
]

INSTANCES = [
    Case(
        "half of instances.json",
        f"{INSTANCES_FILE} is no COCO annotation file (JSONDecodeError: …); {PUT}",
        instances(fixture("instances.json")[:5000]),
    ),
    Case(
        "instances.json in Latin-1",
        f"{INSTANCES_FILE} is no COCO annotation file (UnicodeDecodeError: …); {PUT}",
        instances(b'{"images": [{"file_name": "caf\xe9"}]}'),
    ),
    Case(
        "100,000 brackets", f"{INSTANCES_FILE} is no COCO annotation file (RecursionError: …); {PUT}", instances(DEEP)
    ),
    Case(
        "no annotations",
        f"{INSTANCES_FILE} is no COCO annotation file (KeyError: 'annotations'); {PUT}",
        instances(lambda content: content.pop("annotations")),
    ),
    Case(
        "images that are numbers",
        f"{INSTANCES_FILE} is no COCO annotation file (TypeError: …); {PUT}",
        instances(lambda content: content.update(images=[1, 2])),
    ),
    Case(
        "the same image twice",
        f"{INSTANCES_FILE} has the image 318556 twice; remove one of the two",
        instances(lambda content: content["images"].append(content["images"][0])),
    ),
    Case(
        "the same annotation twice",
        f"{INSTANCES_FILE} has the annotation 1028 twice; remove one of the two",
        instances(lambda content: content["annotations"].extend(content["annotations"])),
    ),
    Case(
        "a photo outside the folder",
        f"{REF_401} names the photo '../../etc/passwd' outside the image folder; give a path below it",
        every("images", file_name="../../etc/passwd"),
    ),
    Case(
        "a photo with an absolute path",
        f"{REF_401} names the photo '/etc/passwd' outside the image folder; give a path below it",
        every("images", file_name="/etc/passwd"),
    ),
    Case(
        "a photo with Windows's separators",
        f"{REF_401} names the photo '..\\\\..\\\\secret.jpg' outside the image folder; give a path below it",
        every("images", file_name="..\\..\\secret.jpg"),
    ),
    Case(
        "a photo on a Windows drive",
        f"{REF_401} names the photo 'C:\\\\secret.jpg' outside the image folder; give a path below it",
        every("images", file_name="C:\\secret.jpg"),
    ),
    Case(
        "a photo with a NUL",
        f"{REF_401} names no photo; give a path below the image folder",
        every("images", file_name="a.jpg\0.png"),
    ),
    Case(
        "an image of 10^12 pixels",
        f"{REF_401} claims a photo of 1000000 x 1000000 pixels; correct the annotation",
        every("images", height=10**6, width=10**6),
    ),
    Case(
        "an image of -1 pixels",
        f"{REF_401} claims a photo of 128 x -1 pixels; correct the annotation",
        every("images", height=-1),
    ),
    Case(
        "a segmentation that is a path",
        f"{REF_401} or its annotation is damaged (ValueError: a segmentation that is a path); {PUT}",
        every("annotations", segmentation="/etc/passwd"),
    ),
    Case(
        "a box that is not finite",
        f"{REF_401} or its annotation is damaged (OverflowError: …); {PUT}",
        every("annotations", bbox=[0, 0, float("inf"), 1]),
    ),
    Case(
        "a box of three numbers",
        f"{REF_401} or its annotation is damaged (ValueError: …); {PUT}",
        every("annotations", bbox=[0, 0, 1]),
    ),
]

REFERIT = [
    Case(
        "a global in test.pickle",
        f"annotations/test.pickle is refused: it wants to import 'posix.system'; {PUT_REFERIT}",
        referit(GLOBAL),
    ),
    Case(
        "a nested object in test.pickle",
        f"annotations/test.pickle is refused: it wants to import 'io.open'; {PUT_REFERIT}",
        referit({"1": {"annotations": [ANNOTATION | {"bbox": Hostile()}]}}),
    ),
    Case(
        "annotations that are no dictionary",
        f"annotations/test.pickle is no dictionary of images; {PUT_REFERIT}",
        referit([1]),
    ),
    Case("no annotation at all", f"annotations/test.pickle has no annotation to use; {PUT_REFERIT}", referit({})),
    Case(
        "an image id that leaves the folder",
        f"annotations/test.pickle: image '../../etc/passwd' has no usable image id ('../../etc/passwd'); {NAMED}",
        referit_image("../../etc/passwd"),
    ),
    Case(
        "an image id with a backslash",
        f"annotations/test.pickle: image '..\\\\secret' has no usable image id ('..\\\\secret'); {NAMED}",
        referit_image("..\\secret"),
    ),
    Case(
        "an image id of 1 MB",
        f"annotations/test.pickle: image … has no usable image id ('111111111111...1111111111111'); {NAMED}",
        referit_image("1" * 10**6),
    ),
    Case(
        "an image without annotations",
        f"annotations/test.pickle: image '1' is damaged (KeyError: 'annotations'); {PUT_REFERIT}",
        referit({"1": {}}),
    ),
    Case(
        "an annotation without query",
        "annotations/test.pickle: image '1' has no list of sentences; give it at least one, or remove it",
        referit_image(query=None),
    ),
    Case(
        "an empty query",
        "annotations/test.pickle: image '1' has an empty sentence; remove it from the annotations",
        referit_image(query=""),
    ),
    Case(
        "a box of NaN",
        f"annotations/test.pickle: image '1' is damaged (ValueError: a box that is not finite); {PUT_REFERIT}",
        referit_image(bbox=[[0, 0, float("nan"), 1]]),
    ),
    Case(
        "a size that is absurd",
        "annotations/test.pickle: image '1' claims a photo of 1000000 x 1000000 pixels; correct the annotation",
        referit_image(segmentation=[{"size": [10**6, 10**6], "counts": "0"}]),
    ),
    Case(
        "no segmentation",
        f"annotations/test.pickle: image '1' is damaged (IndexError: …); {PUT_REFERIT}",
        referit_image(segmentation=[]),
    ),
    Case(
        "one annotation repeated",
        "annotations/test.pickle: image '2' has the same annotation twice; remove one of the two",
        referit(dict.fromkeys("12", {"annotations": [ANNOTATION]})),
    ),
    Case(
        "the same ref_id in two images",
        "annotations/test.pickle has the ref_id 1 twice; remove one of the two",
        referit({i: {"annotations": [ANNOTATION | {"ref_id": 1}]} for i in "12"}),
    ),
]

JSONL = [
    Case("a line that is no JSON", f"train.jsonl:2 is no JSON (…); {FORM}", jsonl(b"{not json")),
    Case(
        "a line that is not UTF-8",
        f"train.jsonl:2 is no JSON (…); {FORM}",
        jsonl(b'{"image": "a.jpg", "sentences": ["caf\xe9"]}'),
    ),
    Case("a line of 100,000 brackets", f"train.jsonl:2 is no JSON (…); {FORM}", jsonl(DEEP)),
    Case("a line that is a list", f"train.jsonl:2 is no object; {FORM}", jsonl(["a.jpg"])),
    Case(
        "a line without sentences",
        "train.jsonl:2 has no list of sentences; give it at least one, or remove it",
        jsonl({"image": "a.jpg"}),
    ),
    Case(
        "an empty list of sentences",
        "train.jsonl:2 has no list of sentences; give it at least one, or remove it",
        jsonl(PHOTO | {"sentences": []}),
    ),
    Case(
        "a blank sentence",
        "train.jsonl:2 has an empty sentence; remove it from the annotations",
        jsonl(PHOTO | {"sentences": ["  "]}),
    ),
    Case(
        "a sentence of 1 MB in a line",
        "train.jsonl:2 has a sentence of 1000000 characters; shorten it to at most 2000",
        jsonl(PHOTO | {"sentences": ["a" * 10**6]}),
    ),
    Case(
        "a lone surrogate",
        "train.jsonl:2 has a sentence that is no valid Unicode; write it as UTF-8",
        jsonl(PHOTO | {"sentences": ["\ud800"]}),
    ),
    Case(
        "a line without image",
        "train.jsonl:2 names no photo; give a path below the image folder",
        jsonl({"sentences": ["x"]}),
    ),
    Case(
        "an image outside the folder",
        "train.jsonl:2 names the photo '../a.jpg' outside the image folder; give a path below it",
        jsonl(PHOTO | {"image": "../a.jpg"}),
    ),
    Case(
        "an image with an absolute path",
        "train.jsonl:2 names the photo '/a.jpg' outside the image folder; give a path below it",
        jsonl(PHOTO | {"image": "/a.jpg"}),
    ),
    Case(
        "an image with a backslash",
        "train.jsonl:2 names the photo 'photos\\\\a.jpg'; write / instead of \\",
        jsonl(PHOTO | {"image": "photos\\a.jpg"}),
    ),
    Case(
        "a mask outside the folder",
        "train.jsonl:2 names the mask '../m.png' outside the image folder; give a path below it",
        jsonl(PHOTO | {"mask": "../m.png"}),
    ),
    Case("an absent mask", f"{BOX} (m.png cannot be used (it is not there)); {FORM}", jsonl(PHOTO | {"mask": "m.png"})),
    Case(
        "a mask of another size",
        f"{BOX} (small.png cannot be used (it is 3 x 3, the photo is 8 x 6)); {FORM}",
        jsonl(PHOTO | {"mask": "small.png"}),
    ),
    Case(
        "a mask of 100,000 x 100,000 pixels",
        f"{BOX} (huge.png cannot be used (it claims more than 100,000,000 pixels)); {FORM}",
        jsonl(PHOTO | {"mask": "huge.png"}),
    ),
    Case(
        "a photo of 100,000 x 100,000 with a mask",
        f"train.jsonl:2: the photo huge.png cannot be read (it claims more than 100,000,000 pixels); {PATH}",
        jsonl(PHOTO | {"image": "huge.png", "mask": "huge.png"}),
    ),
    Case(
        "an absent image with a mask",
        f"train.jsonl:2: the photo z.jpg cannot be read (it is not there); {PATH}",
        jsonl(PHOTO | {"image": "z.jpg", "mask": [[0, 0, 4, 0, 4, 3]]}),
    ),
    Case(
        "an empty mask", f"{BOX} (the mask is empty); {FORM}", jsonl(PHOTO | {"mask": {"size": [6, 8], "counts": [48]}})
    ),
    Case("a box of one number", f"{BOX} (…); {FORM}", jsonl(PHOTO | {"mask": [[0, 0, 4, 0, 4, 3]], "bbox": [1]})),
    Case(
        "a box of Infinity",
        f"{BOX} (a box that is not finite); {FORM}",
        jsonl(PHOTO | {"mask": [[0, 0, 4, 0, 4, 3]], "bbox": [0, 0, float("inf"), 1]}),
    ),
    Case("a number of 400 digits", f"{BOX} (…); {FORM}", jsonl(PHOTO | {"mask": [[10**400, 0, 4, 0, 4, 3]]})),
    Case(
        "a folder as train.jsonl",
        "train.jsonl cannot be read (Is a directory); correct it, or choose another split",
        lambda folder: (folder / "train.jsonl").mkdir() or load_splits("jsonl", ".", "", ["train"]),
    ),
    Case(
        "a split of 300 letters",
        f"{'a' * 300}.jsonl cannot be read (File name too long); correct it, or choose another split",
        lambda folder: load_splits("jsonl", ".", "", ["a" * 300]),
    ),
    Case(
        "a train.jsonl of blank lines",
        f"train.jsonl has no usable line; {FORM}",
        stored("train.jsonl", b"\n \n", lambda _: load_splits("jsonl", ".", "", ["train"])),
    ),
]

SEGMENTATIONS = [
    Case("no part", f"{MASK}: it has no part; {CORRECT}", segmentation([])),
    Case(
        "a polygon of two points",
        f"{MASK}: a polygon needs at least three points x, y; {CORRECT}",
        segmentation([[0, 0, 1, 1]]),
    ),
    Case(
        "an odd number of coordinates",
        f"{MASK}: a polygon needs at least three points x, y; {CORRECT}",
        segmentation([[0, 0, 1, 1, 2, 2, 3]]),
    ),
    Case(
        "a polygon with NaN",
        f"{MASK}: a polygon has coordinates that are not finite or absurdly large; {CORRECT}",
        segmentation([[0, 0, 1, float("nan"), 2, 2]]),
    ),
    Case(
        "a polygon with infinity",
        f"{MASK}: a polygon has coordinates that are not finite or absurdly large; {CORRECT}",
        segmentation([[0, 0, 1, float("-inf"), 2, 2]]),
    ),
    Case(
        "a coordinate of 10^9",
        f"{MASK}: a polygon has coordinates that are not finite or absurdly large; {CORRECT}",
        segmentation([[0, 0, 1e9, 1, 2, 2]]),
    ),
    Case(
        "a polygon of text",
        f"{MASK}: a polygon has a coordinate that is no number; {CORRECT}",
        segmentation([["0", "0", "4", "0", "4", "3"]]),
    ),
    Case(
        "a polygon of lists",
        f"{MASK}: a polygon has a coordinate that is no number; {CORRECT}",
        segmentation([[[0, 0], [4, 0], [4, 3], [0, 0], [4, 0], [4, 3]]]),
    ),
    Case(
        "runs for another size",
        f"{MASK}: its run lengths are for size [5, 8], the photo is [6, 8]; {CORRECT}",
        runs([40], (5, 8)),
    ),
    Case(
        "runs for an absurd size",
        f"{MASK}: its run lengths are for size [1000000, 1000000], the photo is [6, 8]; {CORRECT}",
        runs([10**12], (10**6, 10**6)),
    ),
    Case(
        "runs that exceed the image",
        f"{MASK}: its run lengths do not add up to the size of the photo; {CORRECT}",
        runs([0, 1000]),
    ),
    Case(
        "compressed runs that exceed the image",
        f"{MASK}: its run lengths do not add up to the size of the photo; {CORRECT}",
        runs("0PPP1"),
    ),
    Case(
        "a negative run", f"{MASK}: its run lengths do not add up to the size of the photo; {CORRECT}", runs([-1, 49])
    ),
    Case(
        "a compressed run of 1 MB",
        f"{MASK}: its run lengths hold a character that COCO's format does not know; {CORRECT}",
        runs("o" * 10**6),
    ),
    Case(
        "a text that is no run",
        f"{MASK}: its run lengths hold a character that COCO's format does not know; {CORRECT}",
        runs("\x01\x02"),
    ),
    Case("a text that is not ASCII", f"{MASK}: …; {CORRECT}", runs("é")),
    Case(
        "runs without counts",
        f"{MASK}: its run lengths do not add up to the size of the photo; {CORRECT}",
        segmentation({"size": [6, 8]}),
    ),
    Case("an unfinished run", f"{MASK}: its run lengths end within a run; {CORRECT}", runs("`1o")),
    Case(
        "a polygon of 20,000 long lines",
        f"{MASK}: a polygon's outline is longer than 1,000,000 pixels; {CORRECT}",
        segmentation([[0, 0, 1e5, 1e5] * 10_000]),
    ),
]

PHOTOS = [
    Case(
        "an absent photo", "the photo photo.jpg is not there; complete the image folder (data/README.md)", photo(None)
    ),
    Case(
        "half a photo",
        "the photo photo.jpg cannot be decoded (image file is truncated …); fetch it again",
        photo(half_a_photo()),
    ),
    Case("text instead of a photo", "the photo photo.jpg cannot be decoded (…); fetch it again", photo(b"hello")),
    Case("an empty photo", "the photo photo.jpg cannot be decoded (…); fetch it again", photo(b"")),
    Case(
        "a PNG header of 100,000 x 100,000",
        "the photo photo.png cannot be decoded (it claims more than 100,000,000 pixels); fetch it again",
        photo(png_header(100_000, 100_000), "photo.png"),
    ),
    Case(
        "a PNG header of 11,000 x 11,000",
        "the photo photo.png cannot be decoded (it claims more than 100,000,000 pixels); fetch it again",
        photo(png_header(11_000, 11_000), "photo.png"),
    ),
    Case(
        "a JPEG header of 65,000 x 65,000",
        "the photo photo.jpg cannot be decoded (it claims more than 100,000,000 pixels); fetch it again",
        photo(jpeg_header(65_000, 65_000)),
    ),
    Case(
        "a format that photos do not have",
        "the photo photo.jpg cannot be decoded (…); fetch it again",
        photo(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ),
    Case(
        "a PNG of 16 bits",
        "the photo photo.jpg has more than 8 bits a channel (mode I;16); convert it to 8 bits",
        photo(picture(np.full((2, 2), 300, np.uint16), "PNG")),
    ),
    Case(
        "a TIFF of floats",
        "the photo photo.jpg has more than 8 bits a channel (mode F); convert it to 8 bits",
        photo(picture(np.full((2, 2), 300, np.float32), "TIFF")),
    ),
]

BETWEEN_STAGES = [
    Case("an absent response map", f"the response map 1_9.npy is not there; {EXPORT}", response(None)),
    Case(
        "a response map of objects",
        f"the response map 1_9.npy cannot be read (…); {EXPORT}",
        response(array(np.array([Hostile()], dtype=object))),
    ),
    Case(
        "a pickle as a response map",
        f"the response map 1_9.npy cannot be read (…); {EXPORT}",
        response(pickle.dumps(Hostile())),
    ),
    Case(
        "half a response map",
        f"the response map 1_9.npy cannot be read (…); {EXPORT}",
        response(array(np.zeros((40, 40)))[:999]),
    ),
    Case(
        "a response map that claims 80 GB",
        f"the response map 1_9.npy cannot be read (…); {EXPORT}",
        response(huge_array()),
    ),
    Case(
        "a response map of integers",
        f"the response map 1_9.npy is not a two-dimensional array of floats; {EXPORT}",
        response(array(np.zeros((2, 2), int))),
    ),
    Case(
        "a response map with NaN",
        f"the response map 1_9.npy holds values that are not finite; {EXPORT}",
        response(array(np.full((2, 2), np.nan))),
    ),
    Case(
        "a pseudo mask of 100,000 x 100,000",
        f"1_9.png cannot be read as a PNG (it claims more than 100,000,000 pixels); {MAKE_MASKS}",
        stored("1_9.png", png_header(100_000, 100_000), lambda _: read_mask(".", "1_9")),
    ),
    Case(
        "a pseudo mask that is a text",
        f"1_9.png cannot be read as a PNG (…); {MAKE_MASKS}",
        stored("1_9.png", b"hello", lambda _: read_mask(".", "1_9")),
    ),
    Case("names that are no list", f"toy_names.json is not a list of names like '12_581857'; {WRITE}", names({"a": 1})),
    Case(
        "a name that leaves the folder",
        f"toy_names.json has no usable name ('../../etc/1_9'); {NAMED}",
        names(["../../etc/1_9"]),
    ),
    Case(
        "the same name twice", "toy_names.json has the name '1_9' twice; remove one of the two", names(["1_9", "1_9"])
    ),
    Case(
        "a name without COCO's image id",
        "toy_names.json: 'x' is no COCO image id, and toy_images.json is not there",
        names(["1_x"]),
    ),
    Case(
        "a name without its photo",
        f"toy_images.json does not name the photo of 1_9; {WRITE}",
        names(["1_9"], {"2_9": "a.jpg"}),
    ),
    Case(
        "a listed photo outside the folder",
        "toy_images.json: 1_9 names the photo '../a.jpg' outside the image folder; give a path below it",
        names(["1_9"], {"1_9": "../a.jpg"}),
    ),
    Case(
        "a list of 100,000 brackets",
        "toy_names.json cannot be read as JSON (…); write it again",
        stored("toy_names.json", DEEP, lambda name: read_json(name, "write it again")),
    ),
    Case(
        "a response map of no scores",
        f"the response map 1_9.npy holds absurd sizes; {EXPORT}",
        lambda folder: write_scores(folder, "1_9", np.ones((0, 3)), (32, 32), (5, 5)) or read_map(".", "1_9"),
    ),
    Case(
        "a pseudo mask of another size",
        f"the pseudo mask 1_9.png is 1 x 3, its photo 6 x 8; remove it and {MAKE_MASKS}",
        stored("1_9.png", png(np.zeros((1, 3), np.uint8)), lambda _: read_mask(".", "1_9", (6, 8))),
    ),
]

CHECKPOINTS = [
    Case("an absent checkpoint", f"{CHECKPOINT} is not there; train it", checkpoint(None)),
    Case("an empty checkpoint", f"{CHECKPOINT} is damaged or holds more than tensors; train it", checkpoint(b"")),
    Case(
        "text instead of a checkpoint",
        f"{CHECKPOINT} is damaged or holds more than tensors; train it",
        checkpoint(b"hello"),
    ),
    Case(
        "half a checkpoint",
        f"{CHECKPOINT} is damaged or holds more than tensors; train it",
        checkpoint(saved({"model": {"x": torch.zeros(1000)}})[:2000]),
    ),
    Case(
        "a checkpoint with a global",
        f"{CHECKPOINT} wants to import posix.system; train it",
        checkpoint(with_pickle(GLOBAL)),
    ),
    Case(
        "a checkpoint with a reduce",
        f"{CHECKPOINT} wants to import io.open; train it",
        checkpoint(saved({"model": Hostile()})),
    ),
    Case(
        "a checkpoint with a nested object",
        f"{CHECKPOINT} wants to import io.open; train it",
        checkpoint(saved({"model": {"x": [(Hostile(),)]}})),
    ),
    Case(
        "a checkpoint of protocol 0",
        f"{CHECKPOINT} is damaged or holds more than tensors; train it",
        checkpoint(with_pickle(PYTHON2)),
    ),
    Case(
        "a checkpoint with an extension code",
        f"{CHECKPOINT} is damaged or holds more than tensors; train it",
        with_extension(checkpoint(with_pickle(EXTENSION_CODE))),
    ),
    Case("an old checkpoint with a global", f"{CHECKPOINT} wants to import posix.system; train it", checkpoint(GLOBAL)),
    Case(
        "an old checkpoint with a reduce",
        f"{CHECKPOINT} wants to import io.open; train it",
        checkpoint(unzipped({"model": Hostile()})),
    ),
    Case(
        "an old checkpoint with an extension code",
        f"{CHECKPOINT} is damaged or holds more than tensors; train it",
        with_extension(checkpoint(EXTENSION_CODE)),
    ),
    Case("a checkpoint that is a list", f"{CHECKPOINT} holds no dictionary; train it", checkpoint(saved([1, 2]))),
    Case(
        "a checkpoint without tensors",
        "ckpt.pth holds no network; train it",
        checkpoint(saved({"model": {"prompt.x": 1}})),
    ),
    Case(
        "a checkpoint of something else",
        "ckpt.pth holds no network of this project; give a checkpoint of train_stage1.py or train_stage2.py",
        checkpoint(saved({"model": {"x": torch.zeros(1)}})),
    ),
    Case(
        "tensors that are numbered",
        "ckpt.pth holds no network; train it",
        checkpoint(saved({"model": {1: torch.zeros(1)}})),
    ),
    Case(
        "an unknown description",
        "ckpt.pth describes its network in a way this version does not know; train it again",
        toy_checkpoint(unchanged, depth=3),
    ),
    Case(
        "a backbone that is a number",
        "ckpt.pth describes its network in a way this version does not know; train it again",
        toy_checkpoint(unchanged, backbone=3),
    ),
    Case(
        "a network of 10^9 channels",
        "ckpt.pth describes a network that cannot be: --hidden_dim 1000000000 is not a whole number from 1 to 4096",
        toy_checkpoint(unchanged, hidden_dim=10**9),
    ),
    Case(
        "a network of -1 channels",
        "ckpt.pth describes a network that cannot be: --hidden_dim -1 is not a whole number from 1 to 4096",
        toy_checkpoint(unchanged, hidden_dim=-1),
    ),
    Case(
        "a network of True channels",
        "ckpt.pth describes a network that cannot be: --hidden_dim True is not a whole number from 1 to 4096",
        toy_checkpoint(unchanged, hidden_dim=True),
    ),
    Case(
        "a prompt weight of NaN",
        "ckpt.pth describes a network that cannot be: --attn_multi nan is not a finite number",
        toy_checkpoint(unchanged, prompt_weight=float("nan")),
    ),
    Case(
        "a tensor too few",
        f"ckpt.pth lacks visual_projection.bias; {TOY}",
        toy_checkpoint(lambda state: state.pop("visual_projection.bias")),
    ),
    Case(
        "a tensor too many",
        f"ckpt.pth has 'more', which this network has not; {TOY}",
        toy_tensor("more", torch.zeros(1)),
    ),
    Case(
        "a tensor of another shape",
        f"ckpt.pth has visual_projection.bias of shape (9,) instead of (8,); {TOY}",
        toy_tensor("visual_projection.bias", torch.zeros(9)),
    ),
    Case(
        "a tensor of 10^10 numbers",
        f"ckpt.pth has visual_projection.bias of shape (100000, 100000) instead of (8,); {TOY}",
        toy_tensor("visual_projection.bias", torch.zeros(()).expand(10**5, 10**5)),
    ),
    Case(
        "a tensor of integers",
        f"ckpt.pth has visual_projection.bias in torch.int64 instead of torch.float32; {TOY}",
        toy_tensor("visual_projection.bias", torch.zeros(8, dtype=torch.int64)),
    ),
    Case(
        "a sparse tensor",
        f"ckpt.pth has visual_projection.bias as something else than a plain tensor; {TOY}",
        toy_tensor("visual_projection.bias", torch.zeros(8).to_sparse()),
    ),
    Case(
        "a list instead of a tensor",
        "ckpt.pth holds no network; train it",
        toy_tensor("visual_projection.bias", [0.0] * 8),
    ),
    Case(
        "a tensor with NaN",
        f"ckpt.pth has values in visual_projection.bias that are not finite; {TOY}",
        toy_tensor("visual_projection.bias", torch.full((8,), float("nan"))),
    ),
    Case("an absent IRNet", f"the checkpoint res50_irn.pth is not there; {TRAIN_IRNET}", irnet(None)),
    Case(
        "a hostile IRNet",
        f"the checkpoint res50_irn.pth wants to import io.open; {TRAIN_IRNET}",
        irnet(saved({"backbone": "resnet-toy", "network": Hostile()})),
    ),
    Case(
        "an IRNet without network",
        f"res50_irn.pth is no checkpoint of IRNet; remove it and {TRAIN_IRNET}",
        irnet(saved({"backbone": "resnet-toy"})),
    ),
    Case(
        "an IRNet of an unknown backbone",
        "there is no backbone 'vgg'; choose one of resnet50, resnet-toy",
        irnet(saved({"backbone": "vgg", "network": {}})),
    ),
    Case(
        "an IRNet without tensors",
        f"res50_irn.pth lacks backbone.layers.0.0.bn1.bias; remove it and {TRAIN_IRNET}",
        irnet(saved({"backbone": "resnet-toy", "network": {}})),
    ),
]

SECTIONS = {
    "Commands": COMMANDS,
    "RefCOCO, RefCOCO+, RefCOCOg: refs(...).p": REFS,
    "RefCOCO, RefCOCO+, RefCOCOg: instances.json": INSTANCES,
    "ReferIt": REFERIT,
    "Your own data": JSONL,
    "Masks in annotations": SEGMENTATIONS,
    "Photos": PHOTOS,
    "Files between the stages": BETWEEN_STAGES,
    "Checkpoints": CHECKPOINTS,
}
CASES = [case for section in SECTIONS.values() if section is not COMMANDS for case in section]


INTRODUCTION = """\
# Bad input, and what it gets

One line on standard error, exit status 2, no traceback, nothing half-written under a final name, and nothing from a
file executed; reading annotations or a checkpoint takes at most 1 GiB and 64 times the size of the file. Each row is a
test (`python -m pytest tests/test_bad_input.py`), and `python -m tests.bad_input` writes this page. `…` stands for what
differs between machines: folders, and words of libraries. `python validate.py --check_data` examines a whole data set
and names every fault of it at once.
"""


def page() -> str:
    """docs/bad_input.md."""
    text = INTRODUCTION
    for title, cases in SECTIONS.items():
        rows = "".join(f"| {case.name} | {_cell(case.line)} |\n" for case in cases)
        text += f"\n## {title}\n\n| input | line |\n|---|---|\n{rows}"
    return text


def _cell(line: str) -> str:
    return "`" + line.replace("|", "\\|") + "`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
