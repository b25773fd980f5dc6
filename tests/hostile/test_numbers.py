"""Numbers, names and streams at their extremes: refused where they are parsed, in a word."""

import sqlite3
import zlib
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.compression import Decompressor, compress
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError
from cvmfs_graphdriver.repository.history import History
from cvmfs_graphdriver.repository.manifest import Manifest
from tests.hostile.test_databases import FQRN, new_catalog, new_history, run

MANIFEST = {
    "C": "1" * 40,
    "R": "d41d8cd98f00b204e9800998ecf8427e",
    "D": "240",
    "S": "7",
    "B": "1000",
    "T": "5",
}


def manifest(**changed: str) -> bytes:
    return "".join(f"{letter}{value}\n" for letter, value in {**MANIFEST, **changed}.items()).encode()


@pytest.mark.parametrize(
    ("letter", "greatest"),
    [("D", 2**31 - 1), ("S", 2**62), ("B", 2**40), ("T", 253_402_300_799)],
)
def test_numbers_of_a_manifest_have_a_range(letter: str, greatest: int) -> None:
    Manifest.parse(manifest(**{letter: str(greatest)}))
    for number in (greatest + 1, 99_999_999_999_999, 2**63, 2**64 - 1):
        if number > greatest:
            with pytest.raises(FormatError, match=f"line {letter} .* not a number up to"):
                Manifest.parse(manifest(**{letter: str(number)}))


@pytest.mark.parametrize("column", ["revision", "timestamp", "size"])
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1])
def test_numbers_of_a_tag_have_a_range(column: str, value: int, tmp_path: Path) -> None:
    path = tmp_path / "history"
    new_history(path)
    values = {"revision": 1, "timestamp": 1, "size": 1, column: value}
    run(
        path,
        f"INSERT INTO tags VALUES ('tag', '{'1' * 40}', {values['revision']}, {values['timestamp']}, 0, '', "
        f"{values['size']}, '')",
    )
    history = History.read(path, fqrn=FQRN)
    with pytest.raises(CatalogError, match="out of range"):
        history.tags()
    history.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name = printf('%.70000c', 'n')", "name of 70000 bytes"),
        ("name = printf('%.256c', 'n')", "name of 256 bytes"),
        ("mode = 41471, symlink = printf('%.5000c', 't')", "target of more than 4095 bytes"),
        ("name = printf('%.400000c', 'n')", "too big"),
    ],
)
def test_names_and_targets_are_not_longer_than_linux_can_show(
    change: str, message: str, tmp_path: Path
) -> None:
    """An error, and not a directory that looks empty."""
    path = tmp_path / "catalog"
    new_catalog(path, 3)
    run(path, f"UPDATE catalog SET {change} WHERE name = 'directory1'")
    catalog = Catalog.open(path, mountpoint=b"")
    with pytest.raises(CatalogError, match=message):
        catalog.listing(b"")
    catalog.close()


def test_targets_that_are_too_long_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    new_catalog(path)
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, mode, name, symlink) "
            "VALUES (?, 0, 7, 7, 41471, 'n', printf('%.200000c', 't'))",
            ((number,) for number in range(500)),
        )
    catalog = Catalog.open(path, mountpoint=b"")
    rows = catalog._select(catalog._by_parent, (7, 7, 0, 0, 1000))  # all from the first row on
    assert sum(len(row[9]) for row in rows) == 500 * 4096
    catalog.close()


def test_a_stream_that_inflates_to_nothing_ends() -> None:
    """A full flush is an empty block; a server can send such blocks for ever."""
    deflate = zlib.compressobj()
    stream = Decompressor(limit=1000)
    stream.feed(deflate.compress(b"x") + deflate.flush(zlib.Z_FULL_FLUSH))
    empty = b"\0\0\0\xff\xff" * 1000

    def receive() -> None:
        for _ in range(100):
            stream.feed(empty)

    with pytest.raises(FormatError, match="than content of this size can need"):
        receive()


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_every_honest_stream_is_short_enough(size: int, level: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for stored in (zlib.compress(content, level), compress(content)):
        stream = Decompressor(limit=size)
        assert stream.feed(stored) + stream.finish() == content
