"""The house's rules that a machine can check: who may import whom, and what each module must have.

docs/architecture.md tells the rules to people; the table of floors below is the same table.
"""

import ast
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.project import PROJECT

PACKAGE = "cvmfs_graphdriver"
SOURCE = PROJECT / "src" / PACKAGE
FLOORS = {
    "errors": -1,
    "repository": 0,
    "kernel": 0,
    "oci": 0,
    "http": 0,
    "shell": 0,
    "client": 1,
    "publisher": 1,
    "planes": 2,
    "conversion": 2,
    "layers": 2.5,
    "graphdriver": 3,
    "snapshotter": 3,
    "cli": 4,
}
MOST_LINES = 420
MOST_FILES = 16
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def identify(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a module imports, in functions and for type checkers as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert all(alias.name != "*" for alias in node.names), "wildcard import"
            if (node.module or "").split(".")[0] == PACKAGE:
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in NAMES else str(node.module) for name in names)


def part_of(module: str) -> str:
    """The part of the house that a module belongs to: itself in a room, or an inner room as a whole."""
    return ".".join(module.split(".")[1:3])


def circle(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Parts that need each other, from one back to it; empty if there are none."""
    done: set[str] = set()

    def visit(part: str, trail: list[str]) -> list[str]:
        if part in trail:
            return [*trail[trail.index(part) :], part]
        if part in done:
            return []
        done.add(part)
        found = (visit(other, [*trail, part]) for other in needs.get(part, ()))
        return next(filter(None, found), [])

    return next(filter(None, (visit(part, []) for part in needs)), [])


def violation(importer: str, wanted: str) -> str | None:
    """Why one module must not import the other; None if it may."""
    own, other = importer.split(".")[1:2], wanted.split(".")[1:2]
    if not own or not other or own == other:
        return None
    if FLOORS[own[0]] > FLOORS[other[0]]:
        return None
    return f"{importer} (floor {FLOORS[own[0]]}) imports {wanted} (floor {FLOORS[other[0]]})"


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == FLOORS.keys() - {"errors"}


def test_the_rule_itself() -> None:
    assert violation(f"{PACKAGE}.client.cache", f"{PACKAGE}.repository.digest") is None
    assert violation(f"{PACKAGE}.client.cache", f"{PACKAGE}.client.counters") is None
    assert violation(f"{PACKAGE}.client.cache", f"{PACKAGE}.publisher.storage")  # sideways
    assert violation(f"{PACKAGE}.client.cache", f"{PACKAGE}.planes.plane")  # upwards
    assert violation(f"{PACKAGE}.errors", f"{PACKAGE}.kernel.errors")


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_imports_go_downwards(path: Path) -> None:
    found = [violation(name_of(path), name) for name in imported(ast.parse(path.read_bytes()))]
    assert [text for text in found if text] == []


def test_no_part_needs_itself() -> None:
    """Inner rooms, and files that lie in a room directly."""
    needs: dict[str, list[str]] = {}
    for path in MODULES:
        part = part_of(name_of(path))
        others = {part_of(name) for name in imported(ast.parse(path.read_bytes()))}
        needs.setdefault(part, []).extend(sorted(others - {part}))
    assert circle(needs) == []


def test_circles_are_found() -> None:
    assert circle({"a": ["b", "c"], "b": ["d"], "c": ["d"]}) == []
    assert circle({"a": ["b"], "b": ["c"], "c": ["d", "b"]}) == ["b", "c", "b"]
    assert part_of(f"{PACKAGE}.errors") == "errors"
    assert part_of(f"{PACKAGE}.client.client") == "client.client"
    assert part_of(f"{PACKAGE}.client.network.failover") == "client.network"
    within = f"def f():\n from {PACKAGE}.kernel import mount\nif TYPE_CHECKING:\n import {PACKAGE}.errors"
    assert {part_of(name) for name in imported(ast.parse(within))} == {"kernel.mount", "errors"}


def test_no_folder_is_crowded() -> None:
    files = Counter(path.parent.relative_to(SOURCE.parent) for path in MODULES)
    assert {str(folder): count for folder, count in files.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_a_module_says_what_it_owns_and_what_it_gives(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "it has no docstring"
    assert text.count("\n") <= MOST_LINES, "it is too long to be one noun"
    module = importlib.import_module(name_of(path))
    given = getattr(module, "__all__", None)
    if path.name == "__init__.py" and len(tree.body) == 1:
        return  # a room's door, with nothing behind it
    assert given is not None, "it has no __all__"
    assert len(set(given)) == len(given)
    missing = [name for name in given if not hasattr(module, name)]
    assert missing == [], "__all__ names what is not there"


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(identify(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
