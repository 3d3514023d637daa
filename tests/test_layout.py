"""The house: who may import whom, and that there is no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # room -> the rooms below it that it may know
    "utils": set(),
    "clip": {"utils"},
    "dataset": {"clip", "utils"},
    "model": {"clip", "dataset", "utils"},
    "IRNet": {"dataset", "utils"},
    "web": {"dataset", "model", "utils"},
}
SCRIPTS = {file.stem for file in ROOT.glob("*.py")} | {"scripts"}


def modules():
    """Every module of the rooms by its dotted name; a package's name stands for its `__init__`."""
    files = [file for room in ALLOWED for file in (ROOT / room).rglob("*.py")]
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


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_point_down(room):
    for name, file in MODULES.items():
        if name.split(".")[0] == room:
            reached = {target.split(".")[0] for target in imports(file)} & (set(ALLOWED) | SCRIPTS)
            assert reached <= ALLOWED[room] | {room}, f"{file} reaches up"


def test_the_data_sets_know_tokens_alone_of_clip():
    known = {target for name in MODULES if name.startswith("dataset") for target in imports(MODULES[name])}
    assert {target for target in known if target.startswith("clip")} == {"clip.tokens"}


def test_no_circles():
    graph = {name: imports(file) & set(MODULES) for name, file in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("utils.errors") < order.index("dataset.references") < order.index("model.validation")


def test_no_script_imports_a_script():
    """But scripts/ may be a package that `python -m scripts.name` starts."""
    for file in [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert not {target.split(".")[0] for target in imports(file)} & SCRIPTS, file
