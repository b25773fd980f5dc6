"""docs/compatibility.md: every trap has a row, and every test that a row names exists."""

import ast
import re

from tests.support.project import PROJECT

_ROW = re.compile(r"^\| (\d+) \|.*\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
_TRAPS = 15


def test_every_trap_is_proven_by_tests_that_exist() -> None:
    rows = {int(row[1]): _TEST.findall(row[0]) for row in _ROW.finditer(_text())}
    assert list(rows) == list(range(1, _TRAPS + 1))
    for number, named in rows.items():
        assert named, f"trap {number}"
        for path, test in named:
            tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in names, f"{path}::{test}"


def _text() -> str:
    return (PROJECT / "docs" / "compatibility.md").read_text(encoding="utf-8")
