"""What users get wrong and what attackers plant: one line that names the thing, nothing executed, nothing half-written.

IRNet's files: test_irnet_run.py. Damage at random: test_fuzz.py.
"""

import copyreg
import io
import pickle
import shlex
import shutil
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip import build_clip
from dataset.artifacts import read_images, read_map
from dataset.datasets import load_splits
from IRNet.network import load_network as load_irnet
from model.build import Architecture, build_network, load_network, network_content
from model.segmenter import Segmenter
from tests.conftest import ROOT, data_words, run
from tests.golden import REFERENCE
from tests.small_files import (
    ANNOTATION,
    FILES,
    IMAGE,
    INSTANCES,
    INSTANCES_FILE,
    LINE,
    POLYGONS,
    QUERY,
    REF,
    REFERIT,
    REFS_FILE,
    RUNS,
    as_checkpoint,
    as_map,
    as_picture,
    write,
    write_good_files,
)
from utils.checkpoint import save_checkpoint
from utils.errors import UserError

PHOTO = (REFERENCE / "refer_fixture" / "train2014" / "COCO_train2014_000000000222.jpg").read_bytes()
MEMORY = 300 << 20  # bytes that the refusal of a bomb may take

pytestmark = pytest.mark.usefixtures("one_thread")


# --- What a refusal is


@contextmanager
def refused(words):
    """The block must raise a UserError of one line that contains `words`, and leave nothing in the working folder."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError) as caught:
        yield
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(Path().rglob("*")) == before  # in particular no RAN, see `Hostile`


@contextmanager
def bounded():
    """In the block this process may grow by `MEMORY` at most. Not checked where the system does not say."""

    def memory(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory("VmRSS")
    except OSError:
        yield
        return
    yield
    assert memory("VmHWM") - before < MEMORY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- How bad files are made


class Hostile:
    """Whoever unpickles it creates a file RAN in the working folder."""

    def __reduce__(self):
        return (open, ("RAN", "w"))


def checkpoint_of_pickle(content, *more):
    """A checkpoint in torch's format whose pickle consists of these bytes; with `constants.pkl` one of TorchScript."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("ckpt/data.pkl", content)
        for name in more:
            archive.writestr(f"ckpt/{name}", b"\x80\x02).")
        archive.writestr("ckpt/version", b"3\n")
    return file.getvalue()


def png_header(width, height):
    """A PNG that promises this size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


# --- Commands: what users mistype, forget and mix up. {data} and {broken}: the flags for a good data set and a bad one.

COMMANDS = [
    ("train_stage1.py --size 0", "argument --size: '0' is not a whole number of 64 or more"),
    ("train_stage1.py --batch 3", "unrecognized arguments: --batch 3; --help lists the flags"),  # no abbreviations
    ("train_stage1.py --w1 0 --w4 0 --negative_samples 0", "every loss is switched off; give --w1, --w4 or --w5"),
    ("train_stage1.py {data} --output file", "cannot write to file: File exists; choose another folder"),
    ("train_stage1.py {data} --pretrain trained/stage2.pth", "is a checkpoint of stage 2, not of stage 1"),
    ("train_stage1.py {broken} --backbone toy --num_workers 1", "000000000001.jpg cannot be decoded"),
    ("validate.py --refer_data_root nowhere", "the data folder nowhere is not there; see data/README.md"),
    ("validate.py --refer_data_root empty", "empty/refer/refcoco/refs(unc).p is not there; fetch the annotations"),
    ("validate.py {data} --test_split testC", "refs(umd).p has no split 'testC'; it has test, train, val"),
    ("validate.py --test_split none", "--test_split none leaves nothing to evaluate; name a split"),
    ("validate.py --pseudo_path empty --prms", "--pseudo_path evaluates masks: leave out --prms"),
    ("validate.py --cam_save_dir new --test_split val,testA", "--cam_save_dir takes one split at a time"),
    ("validate.py {data} --output empty", "the checkpoint empty/ckpt.pth does not exist; train it, or fetch"),
    ("validate.py {data} --output trained --pretrain stage2.pth --prms", "stage2.pth is of stage 2; leave it out"),
    ("validate.py {data} --output trained --prms --scorer toy-RNS=hostile.pth", "hostile.pth tries to import io.open"),
    ("validate.py {broken} --output trained --test_split test", "000000000009.jpg is not there; see data/README.md"),
    ("demo.py --img photo.jpg", "give --img and --text, or --web"),
    ("demo.py --img photo.jpg --text man --device tpu9", "the device tpu9 cannot be used"),
    ("demo.py --img none.jpg --text man", "the photo none.jpg is not there; name another --img"),
    ("demo.py --img photo.jpg none.jpg --text man", "the photo none.jpg is not there; name another --img"),
    ("demo.py --img file --text man", "the photo file cannot be decoded"),
    ("demo.py --img photo.jpg --text ' '", "--text has an empty sentence; type what to segment"),
    ("demo.py --img photo.jpg --text man --output file", "cannot write to file: File exists; choose another --output"),
    ("demo.py --img empty --text man", "the folder empty holds no photo (.jpg, "),
]


@pytest.fixture(scope="module")
def bad_world(world, tmp_path_factory):
    """The folder in which commands run, and what {data} and {broken} stand for."""
    folder = tmp_path_factory.mktemp("bad_world")
    broken = shutil.copytree(world, folder / "broken")
    photos = sorted((broken / "train2014").iterdir())
    photos[0].write_bytes(photos[0].read_bytes()[:3000])
    photos[-1].unlink()
    for stage, name in ((1, "ckpt.pth"), (2, "stage2.pth")):
        network = build_network(stage, Architecture("toy", hidden_dim=8, input_size=64), pretrained=False)
        save_checkpoint(folder / "trained" / name, network_content(network))
    for name, content in {"file": b"{", "photo.jpg": PHOTO, "hostile.pth": as_checkpoint(Hostile())}.items():
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    return folder, {name: shlex.join(data_words(root)) for name, root in (("data", world), ("broken", broken))}


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_mistaken_command_is_refused(command, words, bad_world, monkeypatch, capsys):
    folder, flags = bad_world
    name, *given = shlex.split(command.format(**flags))
    if name == "demo.py":
        given += ["--pretrain", "absent.pth"]  # it may have to be downloaded: what is wrong is said before
    before = files_of(folder)
    status, _, printed = run(ROOT / name, *given, monkeypatch=monkeypatch, capsys=capsys, folder=folder)
    assert status == 2
    assert printed.startswith(f"{Path(name).name}: ")
    assert words in printed
    assert printed.index("\n") == len(printed) - 1  # one line
    assert files_of(folder) == before


def files_of(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


# --- Hostile pickles, wherever a pickle is read

EXTENSION = 0x7E  # an extension code that stands for os.system here, as a library could have arranged
PICKLES = {
    "a global": b"cposix\nsystem\n(S'touch RAN'\ntR.",
    "a reduce": pickle.dumps(Hostile(), protocol=2),
    "protocol 0": b'(lp0\nc__builtin__\neval\np1\n(S\'open("RAN","w")\'\np2\ntp3\nRp4\na.',
    "nested": pickle.dumps([{"split": [{"deep": (1, Hostile())}]}], protocol=2),
    "an extension code": b"\x80\x02\x82" + bytes([EXTENSION]) + b"(U\x09touch RANtR.",
}

HARMLESS = {  # but not plain data either
    "another codec": b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    "cut off": pickle.dumps([1, 2, 3])[:-3],
}


@pytest.fixture
def extension():
    copyreg.add_extension("posix", "system", EXTENSION)
    yield
    copyreg.remove_extension("posix", "system", EXTENSION)


@pytest.mark.parametrize("kind", PICKLES | HARMLESS)
def test_a_hostile_pickle_is_not_executed(kind, folder, extension):
    content = (PICKLES | HARMLESS)[kind]
    if kind in PICKLES:  # an ordinary reader would execute it
        pickle.loads(content)
        Path("RAN").unlink()
    for name in ("refer/refcocog/refs(umd).p", "annotations/test.pickle", "old.pth"):
        write(name, content)
    write("zip.pth", checkpoint_of_pickle(content))
    write("script.pth", checkpoint_of_pickle(content, "constants.pkl"))
    with refused("refs(umd).p cannot be read: "):
        load_splits("refcocog", ".", "umd", ["val"])
    with refused("test.pickle cannot be read: "):
        load_splits("referit", ".", "-", ["test"])
    for name in ("zip.pth", "script.pth", "old.pth"):
        with refused(f"the checkpoint {name} "):
            load_network(name)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"])
def test_a_checkpoint_with_a_hostile_object_is_not_executed(options, folder):
    content = {"model": {"x": [Hostile()]}, "backbone": "resnet-toy", "network": {}}
    write("hostile.pth", as_checkpoint(content, **options))
    clips = [lambda name, clip=clip: build_clip(f"{clip}={name}") for clip in ("toy-RN", "RN50")]
    for read in (load_network, lambda name: load_irnet(Path(name)), *clips):
        with refused("the checkpoint hostile.pth tries to import io.open; use a trusted file"):
            read("hostile.pth")


def test_a_pickle_that_promises_terabytes_takes_no_memory(folder):
    terabyte = struct.pack("<Q", 1 << 40)
    memo = b"]r\xff\xff\xff\x7f."  # its entry 2,147,483,647: in the unpickler written in C an array of 32 GB
    for content in (b"\x96" + terabyte, b"\x8e" + terabyte, memo):  # a bytearray, bytes
        write("annotations/test.pickle", b"\x80\x05" + content)
        with bounded(), refused("test.pickle "):
            load_splits("referit", ".", "-", ["test"])


# --- Checkpoints of something else

BIAS = "visual_projection.bias"  # 8 numbers
CHECKPOINTS = [
    ({"architecture": {"hidden_dim": 10**9}}, "an impossible network: --hidden_dim 1000000000 is not a whole number"),
    ({"architecture": {"prompt_weight": 10**400}}, "describes its network in an unknown way; train it again"),
    ({"model": [1, 2]}, "ckpt.pth does not hold a network; train it, or fetch a published one"),
    ({"model": {"prompt.x": torch.zeros(1)}}, "lacks backbone.ln_final.bias; is it a checkpoint with --backbone toy-"),
    ({BIAS: None}, f"lacks {BIAS}; is it a checkpoint with"),
    ({BIAS: torch.zeros(9)}, f"has {BIAS} of shape (9,) instead of (8,)"),
    ({BIAS: torch.full((8,), float("nan"))}, f"has values in {BIAS} that are not finite"),
    ({BIAS: torch.zeros(8).to(torch.float8_e4m3fn)}, f"has {BIAS} in torch.float8_e4m3fn instead of torch.float32"),
    ({BIAS: torch.zeros(8).to_sparse()}, f"has {BIAS} as something other than a plain tensor"),
]


@pytest.mark.parametrize(("changed", "words"), CHECKPOINTS, ids=[words for _, words in CHECKPOINTS])
def test_a_checkpoint_of_something_else_is_refused(changed, words, folder):
    good = network_content(build_network(1, Architecture("toy-RN", hidden_dim=8), pretrained=False))
    ((name, value),) = changed.items()
    if name == "architecture":
        changed = {name: good[name] | value}
    elif name != "model":
        changed = {"model": good["model"] | {name: value}}
    write("ckpt.pth", as_checkpoint(good | changed))
    with refused(words):
        load_network("ckpt.pth")


# --- Paths that lead out of the data folder

OUTSIDE = ["a/../../a.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_out_of_the_folder_is_refused(path, folder):
    write(REFS_FILE, [REF])
    write(INSTANCES_FILE, INSTANCES | {"images": [IMAGE | {"file_name": path}]})
    write("photo.jsonl", {"image": path, "sentences": ["x"]})
    write("mask.jsonl", {"image": "a.jpg", "sentences": ["x"], "mask": path})
    write("annotations/test.pickle", {path: REFERIT["1"]})
    write("a_names.json", ["0_1"])
    write("a_images.json", {"0_1": path})
    write("b_names.json", [f"{path}_1"])
    write("b_images.json", {f"{path}_1": "a.jpg"})
    outside = f"outside the folder of the data set ({path!r})"
    no_name = "has an id that cannot name a file"
    for dataset, split in (("refcocog", "val"), ("jsonl", "photo"), ("jsonl", "mask")):
        with refused(outside):
            load_splits(dataset, ".", "umd", [split])
    with refused(no_name):
        load_splits("referit", ".", "-", ["test"])
    for names, words in (("a_names.json", outside), ("b_names.json", no_name)):
        with refused(words):
            read_images(names)


# --- Files of every kind that are damaged, of another kind, or far larger than they look

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"  # a program, which Pillow gives to Ghostscript
SIXTEEN_BITS = as_picture(np.full((2, 2), 300, np.uint16))
HUGE = png_header(100_000, 100_000)
TERABYTES = as_map(np.zeros((9, 9))).replace(b"(9, 9), }        ", b"(999999, 999999)}")
NOT_OPENED = ANNOTATION | {"segmentation": "0_1.png"}  # only jsonl's masks may be paths
OTHER_ENCODING = "it is not in UTF-8; save it as UTF-8"
NO_MAP = "not a two-dimensional array of finite numbers"


def ref(**values):
    return REFS_FILE, [REF | values]


def image(**values):
    return INSTANCES_FILE, INSTANCES | {"images": [IMAGE | values]}


def line(**values):
    return "train.jsonl", [LINE | values]


def query(**values):
    return "annotations/test.pickle", {"2": {"annotations": [QUERY | values]}}


BAD = [
    (("a.jpg", PHOTO[: len(PHOTO) // 2]), "the photo a.jpg cannot be decoded (image file is truncated"),
    (("a.jpg", POSTSCRIPT), "the photo a.jpg cannot be decoded (it is not a JPEG/PNG/BMP/"),
    (("a.jpg", SIXTEEN_BITS), "the photo a.jpg has more than 8 bits per channel"),
    (("a.jpg", png_header(10_000, 10_000)), "the photo a.jpg cannot be decoded (it has 10000 x 10000 pixels, more"),
    (("a.jpg", HUGE), "the photo a.jpg cannot be decoded (Image size (10000000000 pixels)"),
    (("0_1.npz", [np.array([[Hostile()]]), [4, 6], [5, 5]]), "0_1.npz cannot be read (Object arrays cannot be loaded"),
    (("0_1.npz", [[[np.inf]], [4, 6], [5, 5]]), NO_MAP),
    (("0_1.npz", [[[1.0]], [10**5, 10**5], [5, 5]]), "it holds an absurd size, 100000 x 100000"),
    (("0_2.npy", pickle.dumps(Hostile())), "0_2.npy cannot be read ("),
    (("0_2.npy", TERABYTES), "0_2.npy cannot be read (mmap length is greater than file size"),
    (("0_1.png", HUGE), "0_1.png cannot be read as a PNG (Image size"),
    (("a.pth", as_checkpoint({"x": torch.zeros(1000)})[:2000]), "the checkpoint a.pth is damaged"),
    (("a.pth", [1, 2]), "the checkpoint a.pth does not hold a dictionary"),
    (("a_names.json", ["untitled"]), "a_names.json is not a list of names like '12_581857'; export it"),
    (("a_names.json", ["0_a"]), "a_images.json does not name the photo of every name"),
    (ref(split=5), "refs(umd).p is not a list of refs"),
    (ref(sentences=[]), "ref 1 has no list of sentences"),
    (ref(sentences=[{"sent": " "}]), "ref 1 has an empty sentence"),
    (ref(sentences=[{}]), "ref 1, its image or annotation is absent or damaged (no 'sent')"),
    (ref(ref_id=10**5000), "ref <int> has an id that cannot name a file (<int>)"),
    (image(height=10**9), "the mask of ref 1 (train2014/a.jpg) is damaged: its photo is said to have 8 x 1000000000"),
    ((INSTANCES_FILE, INSTANCES | {"annotations": [NOT_OPENED]}), "mask of ref 1 (train2014/a.jpg) is damaged: could "),
    ((INSTANCES_FILE, {"images": []}), "instances.json is not a COCO annotation file (no 'annotations')"),
    (query(bbox=[[1, 2]]), "image '2' is damaged (not enough values to unpack"),
    (("train.jsonl", b"\n"), "train.jsonl is empty; a line is"),
    (("train.jsonl", [LINE, []]), "train.jsonl:2 is not a JSON object (no braces around it); a line is"),
    (("train.jsonl", "{}".encode("utf-16")), f"train.jsonl:1 is not a JSON object ({OTHER_ENCODING}); a line is"),
    (("train.jsonl", "{}".encode("utf-16-be")), OTHER_ENCODING),  # without a mark; these bytes are UTF-8 as well
    (("train.jsonl", '{"image": "é.jpg"}'.encode("latin-1")), OTHER_ENCODING),
    ((INSTANCES_FILE, "{}".encode("utf-16")), f"is not a COCO annotation file ({OTHER_ENCODING}); fetch"),
    (("a_names.json", "[]".encode("utf-16")), f"a_names.json cannot be read as JSON ({OTHER_ENCODING}); export it"),
    (("train.jsonl", b"[" * 100_000), "train.jsonl:1 is not a JSON object (maximum recursion depth"),
    (line(image="b.jpg", mask=POLYGONS), "has a photo, mask or bbox that cannot be used (it is not there)"),
    (line(mask="a.jpg"), "a.jpg cannot be used (it is not a PNG picture"),
    (line(mask=[[0, 0, 1, 1]]), "a polygon needs at least three points"),
    (line(mask=[[0, 0, 4, 0, 4, float("nan")]]), "a polygon has coordinates that are not finite"),
    (line(mask=[[0, 0, 1e5, 1e5] * 10]), "far outside any photo"),  # a long outline, see MAX_OUTLINE
    (line(mask={"size": [8, 6], "counts": [48]}), "its run lengths are for size [8, 6], the photo is [6, 8]"),
    (line(mask=RUNS | {"counts": [2**62, 2**62]}), "its run lengths are not those of a mask of the photo's size"),
    (line(mask=RUNS | {"counts": "0`"}), "its run lengths are not those of a mask"),  # ends within a run
    (line(mask=RUNS | {"counts": "o" * 1_000_000}), "its run lengths are not in COCO's format"),
]


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("file", "words"), BAD, ids=[words for _, words in BAD])
def test_a_bad_file_is_refused(file, words, folder):
    write_good_files()
    write(*file)
    with bounded(), refused(words):
        FILES[file[0]][2](file[0])


IN_MEMORY = [
    (np.full((4, 5), 300, np.uint16), "cannot be used (an array of uint16 (4, 5)); give a path, a PIL image, "),
    (np.zeros((4, 5, 3)), "an array of float64 (4, 5, 3)"),
    (np.zeros((4, 5), bool), "an array of bool (4, 5)"),
    (np.zeros((3, 4, 5), np.uint8), "an array of uint8 (3, 4, 5)"),
    (np.zeros(5, np.uint8), "an array of uint8 (5,)"),
    (np.zeros((0, 5, 3), np.uint8), "an array of uint8 (0, 5, 3)"),
    (torch.zeros(3, 4, 5), "the photo cannot be used (Tensor)"),
    (PHOTO, "the photo cannot be used (bytes)"),
    (Image.new("I;16", (5, 4)), "the photo has more than 8 bits per channel (mode I;16); convert it to 8 bits"),
    (Image.new("F", (5, 4)), "the photo has more than 8 bits per channel (mode F)"),
    (Image.new("RGB", (0, 4)), "the photo cannot be used (Image)"),
    (Image.open(io.BytesIO(PHOTO[:3000])), "the photo cannot be decoded (image file is truncated"),
]


@pytest.mark.parametrize(("photo", "words"), IN_MEMORY, ids=[words for _, words in IN_MEMORY])
def test_what_is_no_photo_is_not_segmented(photo, words, folder):
    with refused(words):
        Segmenter(torch.nn.Identity()).segment(photo, ["x"])


def test_an_archive_that_unpacks_to_much_more_takes_no_memory(folder):
    with zipfile.ZipFile("a.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/constants.pkl", b"\x80\x02).")
        archive.writestr("a/data/0", bytes(400 << 20))
    with bounded(), refused("the checkpoint a.pt is damaged"):
        load_network("a.pt")
    with zipfile.ZipFile("1_9.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("scores.npy", bytes(400 << 20))
    with bounded(), refused("1_9.npz cannot be read (it unpacks to an absurd size)"):
        read_map(".", "1_9")
