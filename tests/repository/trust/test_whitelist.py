"""The whitelist: its lines, its dates, hostile text."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.keys import Fingerprint
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist
from tests.support.mutations import survives

MARKS = tuple(Fingerprint(Digest.of(b"certificate", algorithm)) for algorithm in Algorithm)
CREATED = datetime(2026, 11, 23, 18, 31, 50, tzinfo=UTC)
LIST = Whitelist("x.example.org", CREATED, datetime(2026, 12, 23, 18, 31, 50, tzinfo=UTC), MARKS)


def test_text_is_that_of_stock_tools() -> None:
    lines = LIST.export().decode().splitlines()
    assert lines[:3] == ["20261123183150", "E20261223183150", "Nx.example.org"]
    assert lines[3] == Digest.of(b"certificate").raw.hex(":").upper()
    assert [line[59:] for line in lines[3:]] == ["", "-RMD160", "-SHAKE128"]
    assert Whitelist.parse(LIST.export()) == LIST


def test_comments_and_forms_are_passed_over() -> None:
    text = LIST.export().decode().replace(MARKS[0].text, f"# mine\n\nWsomething\n{MARKS[0].text} # of 2026")
    assert Whitelist.parse(text.encode()) == LIST


def test_hours_count_in_any_time_zone() -> None:
    assert not LIST.expired(CREATED)
    end = LIST.expires.replace(minute=59, second=59)
    assert not LIST.expired(end)
    assert LIST.expired(end + timedelta(seconds=1))
    assert not LIST.expired(end.astimezone(timezone(timedelta(hours=-11))))


def test_people_are_told_a_week_before() -> None:
    week = LIST.expires - timedelta(days=7)
    assert LIST.problem(week) == ""
    assert LIST.problem(week + timedelta(seconds=1)) == (
        "the whitelist of x.example.org expires on 2026-12-23 18:31 UTC: its owner must sign it again"
    )
    assert "x.example.org expired on 2026-12-23 18:31 UTC" in LIST.problem(LIST.expires + timedelta(hours=1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("E2026", "2026"),
        ("N", "M"),
        ("20261123183150", "2026112318315"),
        ("20261123183150", "20261323183150"),
        ("20261123183150", "+2261123183150"),
        ("\n", " "),
        ("-RMD160", "-MD5"),
    ],
)
def test_lines_that_have_not_their_form_are_refused(old: str, new: str) -> None:
    with pytest.raises(FormatError):
        Whitelist.parse(LIST.export().decode().replace(old, new, 1).encode())


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    assert survives(Whitelist.parse, [LIST.export()]) > 0.2
