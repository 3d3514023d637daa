"""The house: who may import whom, and that there is no circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READING = (ROOT / "README.md").read_text().split("## Reading the code")[1].split("Imports point down")[0]
ROOMS = re.findall(r"^    (\w+)/ ", READING, re.MULTILINE)  # from top to bottom
STRANGERS = {"web": {"IRNet", "clip"}, "model": {"IRNet"}, "IRNet": {"clip"}}  # below a room, and yet unknown to it
SCRIPTS = {file.stem for file in ROOT.glob("*.py")} | {"scripts"}


def modules():
    """Every module of the rooms by its dotted name; a package's name stands for its `__init__`."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(file):
    """The dotted names that a file imports, submodules in `from package import name` included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides which room it reaches into"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {node.module}
    return found


def test_readme_names_every_room():
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert set(ROOMS) == packages - {"tests", "benchmarks"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    allowed = {*ROOMS[ROOMS.index(room) :]} - STRANGERS.get(room, set())
    for name, file in MODULES.items():
        if name.split(".")[0] == room:
            reached = {target.split(".")[0] for target in imports(file)} & {*ROOMS, *SCRIPTS}
            assert reached <= allowed, f"{file} reaches up"


def test_the_data_sets_know_tokens_alone_of_clip():
    known = {target for name in MODULES if name.startswith("dataset") for target in imports(MODULES[name])}
    assert {target for target in known if target.startswith("clip")} == {"clip.tokens"}


def test_no_circles():
    graph = {name: imports(file) & set(MODULES) for name, file in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("utils.errors") < order.index("dataset.references") < order.index("model.validation")


def test_no_script_imports_a_script():
    for file in [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert not {target.split(".")[0] for target in imports(file)} & SCRIPTS, file
