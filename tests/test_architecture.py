"""Imports go down: a room knows the rooms below it, never one above or beside unless the table says so."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "guerdon"

LEVELS = [
    {"core"},
    {"objectives", "metrics"},
    {"rewards", "models", "policies"},
    {"trainers", "benchmarks", "audits", "serving", "report", "curation", "comparisons"},
    {"recipes", "claims"},
    {"cli"},
]
# Room -> the rooms of its own level that it may know: a reward wraps a model.
BESIDE = {"rewards": {"models"}}
# Not rooms: the package itself and what it carries.
TOP_FILES = {"__init__.py", "__main__.py", "py.typed"}
DATA_FOLDERS = {"assets"}

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(path: Path) -> str:
    """The room that a file of the package forms or stands in."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py") if first.endswith(".py") else first


def imported_rooms(source: str, package: tuple[str, ...]) -> set[str]:
    """Rooms that a file names in its imports, also inside functions; ``package`` is the dotted package it stands in."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "guerdon" and len(parts) > 1:
                found.add(parts[1])
    return found & set(LEVEL)


def faults_of(room: str, known: set[str]) -> list[str]:
    """Rooms among ``known`` that ``room`` must not know."""
    allowed = {other for other in LEVEL if LEVEL[other] < LEVEL[room]} | {room} | BESIDE.get(room, set())
    return sorted(known - allowed)


def python_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in DATA_FOLDERS)


def test_every_file_stands_in_a_known_room():
    strangers = []
    for path in sorted(PACKAGE.rglob("*")):
        relative = path.relative_to(PACKAGE)
        if path.is_dir() or "__pycache__" in relative.parts or relative.parts[0] in DATA_FOLDERS:
            continue
        if len(relative.parts) == 1 and relative.name in TOP_FILES:
            continue
        if room_of(path) not in LEVEL:
            strangers.append(str(relative))
    assert not strangers, f"these files form a room that the house does not have: {strangers}"


def test_imports_go_down():
    assert python_files()
    faults = []
    for path in python_files():
        room = room_of(path)
        if room not in LEVEL:
            continue  # the package's own __init__, checked below, or a stranger, reported above
        package = ("guerdon", *path.relative_to(PACKAGE).parts[:-1])
        for other in faults_of(room, imported_rooms(path.read_text(encoding="utf-8"), package)):
            faults.append(f"{path.relative_to(PACKAGE)} imports guerdon.{other}")
    assert not faults, "\n".join(faults)


def test_the_package_itself_imports_no_room():
    assert imported_rooms((PACKAGE / "__init__.py").read_text(encoding="utf-8"), ("guerdon",)) == set()


def test_files_stay_rooms_of_one_concept():
    long = {str(p.relative_to(PACKAGE)): n for p in python_files() if (n := len(p.read_text().splitlines())) > 420}
    assert not long, f"a file over about 400 lines is two: {long}"


def test_no_vague_names():
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [str(path) for path in python_files() if vague & set(path.stem.split("_"))]


@pytest.mark.parametrize(
    "source, package, expected",
    [
        ("import guerdon.core.errors", ("guerdon",), {"core"}),
        ("from guerdon.trainers import diffusion", ("guerdon",), {"trainers"}),
        ("from guerdon import trainers, core", ("guerdon",), {"trainers", "core"}),
        ("def f():\n    from guerdon.cli import app", ("guerdon",), {"cli"}),
        ("from ..recipes import realgen", ("guerdon", "core"), {"recipes"}),
        ("from . import errors", ("guerdon", "core"), {"core"}),
        ("from .errors import X", ("guerdon", "rewards", "text"), {"rewards"}),
        ("import guerdon, torch.nn\nfrom datasets import Dataset", ("guerdon",), set()),
    ],
)
def test_the_reader_of_imports(source, package, expected):
    assert imported_rooms(source, package) == expected


@pytest.mark.parametrize(
    "room, known, expected",
    [
        ("core", {"core", "metrics"}, ["metrics"]),
        ("rewards", {"models", "core", "objectives"}, []),
        ("models", {"rewards"}, ["rewards"]),
        ("policies", {"models"}, ["models"]),
        ("objectives", {"metrics"}, ["metrics"]),
        ("trainers", {"report", "benchmarks", "policies"}, ["benchmarks", "report"]),
        ("recipes", {"claims", "trainers"}, ["claims"]),
        ("cli", {"recipes", "claims", "core"}, []),
    ],
)
def test_the_table_of_rooms(room, known, expected):
    assert faults_of(room, known) == expected


@pytest.mark.parametrize("what", ["guerdon", "guerdon.core", "every module of core"])
def test_light_imports(what):
    """Neither the package nor any module of core loads torch on import."""
    modules = [f"guerdon.core.{path.stem}" for path in sorted((PACKAGE / "core").glob("[!_]*.py"))]
    code = (
        f"import sys; sys.path[:0] = [{str(PACKAGE.parent)!r}]; "
        f"import {', '.join(modules) if what.startswith('every') else what}; "
        "heavy = {'torch', 'transformers', 'diffusers', 'datasets', 'trl', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
