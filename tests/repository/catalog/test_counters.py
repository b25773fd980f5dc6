"""Counters: how entries count, and the names in the table."""

import stat

import pytest

from cvmfs_graphdriver.repository.catalog.counters import Counters, Tally
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.errors import FormatError

FILE = DirectoryEntry(b"f", stat.S_IFREG | 0o644, 10, flags=EntryFlag.FILE)
LINK = DirectoryEntry(
    b"l", stat.S_IFLNK | 0o777, 7, symlink=b"target!", flags=EntryFlag.FILE | EntryFlag.SYMLINK
)


@pytest.mark.parametrize(
    ("entry", "chunks", "counted"),
    [
        (FILE, 0, Tally(regular=1, file_size=10)),
        (
            FILE._replace(flags=EntryFlag.FILE | EntryFlag.CHUNKED),
            3,
            Tally(regular=1, file_size=10, chunked=1, chunks=3, chunked_size=10),
        ),
        (
            FILE._replace(flags=EntryFlag.FILE | EntryFlag.EXTERNAL, xattr=b"\1\0"),
            0,
            Tally(regular=1, file_size=10, external=1, external_file_size=10, xattr=1),
        ),
        (LINK, 0, Tally(symlink=1)),
        (FILE._replace(mode=stat.S_IFDIR | 0o755, size=4096, flags=EntryFlag.DIRECTORY), 0, Tally(dir=1)),
        (FILE._replace(mode=stat.S_IFCHR | 0o600, rdev=5, size=0), 0, Tally(special=1)),
        (FILE._replace(mode=stat.S_IFIFO | 0o600, size=0), 0, Tally(special=1)),
        (FILE._replace(mode=stat.S_IFSOCK | 0o600, size=0), 0, Tally(special=1)),
    ],
)
def test_counting(entry: DirectoryEntry, chunks: int, counted: Tally) -> None:
    tally = Tally()
    tally.count(entry, chunks)
    assert tally == counted
    tally.count(entry, chunks, -1)
    assert tally == Tally()


def test_table() -> None:
    counters = Counters(Tally(regular=1, chunks=2), Tally(regular=10, dir=4))
    rows = counters.rows()
    assert len(rows) == 24
    assert (rows["self_regular"], rows["subtree_regular"], rows["subtree_dir"]) == (1, 10, 4)
    assert Counters.parse(rows) == counters
    assert counters.total == Tally(regular=11, chunks=2, dir=4)
    assert counters.total.entries == 15
    assert Counters.parse({"self_regular": 1, "self_nonsense": 3}) == Counters(Tally(regular=1), Tally())


@pytest.mark.parametrize("value", [2**60 + 1, -(2**63)])
def test_what_nobody_can_have_counted_is_refused(value: int) -> None:
    with pytest.raises(FormatError, match="'subtree_dir' = "):
        Counters.parse({"self_dir": 5, "subtree_dir": value})


def test_wrong_counters_do_not_make_entries_negative() -> None:
    assert Counters.parse({"self_dir": 5, "subtree_dir": -9}).total.entries == 0
