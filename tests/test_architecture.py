"""The house's rules that a machine can check: who may import whom, and what each module must have.

docs/architecture.md tells the rules to people; the table of floors below is the same table.
"""

import ast
import importlib
from collections.abc import Iterator
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
    "cli": 4,
}
MOST_LINES = 420
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def identify(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert all(alias.name != "*" for alias in node.names), "wildcard import"
            if (node.module or "").split(".")[0] == PACKAGE:
                yield node.module or ""


def imported_at_start(tree: ast.Module) -> Iterator[str]:
    """Those that it imports while it is being imported itself: not within functions."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)


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


def test_no_module_needs_itself() -> None:
    names = {name_of(path) for path in MODULES}
    needs = {
        name_of(path): [name for name in imported_at_start(ast.parse(path.read_bytes())) if name in names]
        for path in MODULES
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in needs[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in needs:
        visit(name, ())


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
