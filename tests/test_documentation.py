"""Links and module paths in the documentation lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import PROJECT

PACKAGE = PROJECT / "src" / "cvmfs_graphdriver"
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            yield target


def modules(page: Path) -> Iterator[str]:
    """Python files that are named with a folder; ``tests/x.py::test_y`` is the file."""
    yield from re.findall(r"(?<![\w./*-])((?:\w+/)+\w+\.py)\b", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_what_is_named_exists(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []
    assert [
        path for path in modules(page) if not any((root / path).exists() for root in (PROJECT, PACKAGE))
    ] == []
