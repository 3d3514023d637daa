"""What README and docs say stays true: their commands, taken from the text, and their links."""

import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import torch

from dataset.artifacts import write_mask
from dataset.datasets import load_splits
from model.build import Architecture, build_network, network_content
from tests.conftest import ROOT, run
from toy.layouts import write_refcocog
from toy.photos import make_photos
from utils.checkpoint import save_checkpoint

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/*.md"))]
MADE_BY_USERS = ("data", "weights", "output", "figs")
SCRIPT = re.compile(r"(?:python(?: -m)?|bash|torchrun.*?) ([\w./]+)")


def commands(text):
    """Commands in indented or fenced blocks, continued lines joined, comments left out."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^\s*(?:\$ )?((?:python|bash|torchrun|srun) .+)$", joined, re.MULTILINE)
    return [shlex.join(shlex.split(line, comments=True)) for line in found if "..." not in line]


def script_of(command):
    """The file that a command runs."""
    name = SCRIPT.search(command)[1]
    if "/" in name or name.endswith(".py"):
        return name
    path = name.replace(".", "/")  # of `python -m name`
    return f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py"


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text())))
# The weights of CLIP and SAM, which the others need, cannot be had here.
SCRIPTS = ("python demo.py", "python predict.py", "python validate")
OFFLINE = [c for c in COMMANDS if c.startswith(SCRIPTS) and not re.search(r"clip-RN50|--sam\b", c)]


def test_links_inside_the_repository_resolve():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_changes_are_those_of_this_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


@pytest.mark.parametrize("name", sorted({script_of(command) for command in COMMANDS}))
def test_scripts_have_the_flags_that_are_written(name, script):
    """Every flag of every command stands in the help of its script, or of the one in Python that it hands them to."""
    assert (ROOT / name).is_file()
    own = [SCRIPT.split(command, maxsplit=1)[-1] for command in COMMANDS if script_of(command) == name]
    flags = {word for words in own for word in shlex.split(words) if re.fullmatch(r"--\w+", word)}
    if not flags:
        return
    if (python := (ROOT / name).with_suffix(".py")).is_file():
        help_text = script(python, "--help")[1]
    else:
        help_text = subprocess.check_output(["bash", name, "--help"], cwd=ROOT, text=True, timeout=120)
    assert not {flag for flag in flags if flag not in help_text}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository with small artifacts of a toy world where users have theirs."""
    root = tmp_path_factory.mktemp("clone")
    for entry in ROOT.iterdir():
        if entry.name not in MADE_BY_USERS and not entry.name.startswith("."):
            (root / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "figs", root / "figs")
    shutil.copy(ROOT / "figs" / "demo.png", root / "photo.jpg")
    (root / "mydata").mkdir()
    shutil.copy(ROOT / "figs" / "demo.png", root / "mydata" / "photo.jpg")
    (root / "mydata" / "todo.jsonl").write_text('{"image": "photo.jpg", "sentences": ["the orange cross"]}')
    write_refcocog(root / "data", make_photos(5, {"train": 2, "val": 1, "test": 1}))
    for ref in load_splits("refcocog", root / "data", "umd", ["train"])["train"].references:
        write_mask(root / "output" / "refcocog_umd" / "ins_seg", ref.name, np.ones(ref.size, bool))
    torch.manual_seed(0)
    for stage, files in {
        1: ("weights/refcocog_umd/ckpt.pth", "weights/stage1_refcocog_umd.pth"),
        2: ("weights/stage2_refcocog_umd.pth", "output/toy/stage2/ckpt.pth", "output/mydata/stage2/ckpt.pth"),
    }.items():
        network = build_network(stage, Architecture("toy", 16), pretrained=False)
        for file in files:
            save_checkpoint(root / file, network_content(network))
    return root


@pytest.mark.parametrize("command", OFFLINE)
def test_commands_that_run_offline(command, clone, monkeypatch, capsys):
    """They find their files and end well."""
    _, *words = shlex.split(command)
    status, _, errors = run(*words, monkeypatch=monkeypatch, capsys=capsys, folder=clone)
    assert status == 0, errors


def test_the_python_example(clone, monkeypatch):
    code = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(clone)
    names = {}
    exec(code, names)
    assert (names["masks"].dtype, names["masks"].ndim, len(names["masks"])) == (bool, 3, 2)
    assert names["maps"].shape[1:] == names["masks"].shape[1:]
