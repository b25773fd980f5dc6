"""The records of decisions: numbered without gaps, of one form, and all in the index."""

import re
from pathlib import Path

import pytest

from tests.support.project import PROJECT

RECORDS = sorted((PROJECT / "docs/adr").glob("[!R]*.md"))
SECTIONS = ["Context", "Options", "Decision", "Consequences"]


def test_they_are_numbered() -> None:
    assert [record.name[:5] for record in RECORDS] == [
        f"{number:04}-" for number in range(1, len(RECORDS) + 1)
    ]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_form(record: Path) -> None:
    title, empty, status = record.read_text().splitlines()[:3]
    assert title.startswith(f"# {record.name[:4]}. ")
    assert not empty
    assert re.fullmatch(r"\d{4}-\d\d-\d\d, .+", status)
    assert re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE) == SECTIONS


def test_the_index_has_each_with_title_and_status() -> None:
    index = (PROJECT / "docs/adr/README.md").read_text()
    for record in RECORDS:
        title, _, status = record.read_text().splitlines()[:3]
        assert f"| [{record.name[:4]}]({record.name}) | {title[8:]} | {status} |" in index
