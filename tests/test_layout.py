"""The house: imports point down the rooms that docs/design.md lists, and there is no circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## The rooms")[1]
ROOMS = re.findall(r"^    (\w+)/ ", DESIGN, re.MULTILINE)  # from top to bottom
STRANGERS = {"model": {"IRNet"}, "IRNet": {"clip"}}  # rooms below that it nevertheless does not know
SCRIPTS = {file.stem: file for file in ROOT.glob("*.py")}
FILES = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def imports(file):
    """The dotted names that a file imports, submodules in `from package import name` included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides which room it reaches into"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {node.module}
    return found


def rooms_of(names):
    return {name.split(".")[0] for name in names}


def test_every_room_is_listed():
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert set(ROOMS) == packages - {"tests", "benchmarks"}


def test_imports_point_down_and_there_is_no_circle():
    for name, file in MODULES.items():
        (room,) = rooms_of([name])
        allowed = {*ROOMS[ROOMS.index(room) :]} - STRANGERS.get(room, set())
        assert rooms_of(imports(file)) & {*ROOMS, *SCRIPTS, "scripts", "benchmarks"} <= allowed, file
    known = {target for name in MODULES if name.startswith("dataset") for target in imports(MODULES[name])}
    assert {target for target in known if target.startswith("clip")} == {"clip.tokens"}
    TopologicalSorter({name: imports(file) & set(MODULES) for name, file in MODULES.items()}).prepare()  # or CycleError


def test_no_script_imports_a_script_but_referit():
    for file in [*SCRIPTS.values(), *(ROOT / "scripts").glob("*.py")]:
        allowed = {"validate"} if file.name == "validate_referit.py" else set()
        assert rooms_of(imports(file)) & {*SCRIPTS, "scripts"} <= allowed, file
