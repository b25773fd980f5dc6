"""Repositories of ours beside those of the stock server: the same files, databases, rows and object names.

What is different by decision stands here, and nowhere else is anything different.
"""

import re
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.interface import ContentReader
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.compression import Engine
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, PathKey, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.letter import Letter
from tests.support.entries import file
from tests.support.fixtures import UnpackedRepository, unpack
from tests.support.project import require_fixtures
from tests.support.storage_site import FQRN, Site

STOCK_OPTIONS = RepositoryOptions(engine=Engine.ZLIB, chunking=None, garbage_collectable=False, auto_tag=True)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> UnpackedRepository:
    return unpack("ingest", tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same tars in the same places as in the fixture, one revision each."""
    site = Site(tmp_path_factory.mktemp("ours"), STOCK_OPTIONS)
    tars = require_fixtures() / "ingest" / "tars"
    for path, name in (
        (b"/layers/aa/base", "base"),
        (b"/layers/bb/delta", "delta"),
        (b"/owned/default", "base"),
    ):
        with tarfile.open(tars / f"{name}.tar.gz") as archive:
            assert archive.getmembers()
        site.publish({path: with_marker(tars / f"{name}.tar.gz")})
    return site


def with_marker(tar: Path) -> Iterator[tuple[TreeEntry, ContentReader | None]]:
    """A tar's entries and the marker file that ``cvmfs_server ingest -c`` adds."""
    with tar.open("rb") as source:
        notes: list[str] = []
        yield from tree_entries(LayerStream(tar.name, source), notes)
        assert notes == []
    entry, content = file("/.cvmfscatalog", b"", 0o664)
    yield entry._replace(mtime=1), content


def catalog_file(site: Site | UnpackedRepository, mountpoint: bytes, place: Path) -> Path:
    """The catalog of the newest revision at a mountpoint, as a database file."""
    root = site.storage if isinstance(site, Site) else site.root
    storage = LocalStorage(root)
    manifest = Manifest.parse(Letter.parse((root / ".cvmfspublished").read_bytes()).body)
    at, digest = b"", manifest.root
    while True:
        path = place / f"{digest.hex}.db"
        path.write_bytes(read_object(storage, ObjectName(digest, Suffix.CATALOG)))
        if at == mountpoint:
            return path
        catalog = Catalog.open(path, mountpoint=at)
        reference = catalog.nested_for(mountpoint)
        catalog.close()
        assert reference is not None
        at, digest = reference.path, reference.digest


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def rows(path: Path) -> dict[tuple[int, int], Row]:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    connection.row_factory = sqlite3.Row
    try:
        found = [dict(row) for row in connection.execute("SELECT * FROM catalog")]
    finally:
        connection.close()
    return {(row.pop("md5path_1"), row.pop("md5path_2")): row for row in found}


def shape(path: Path) -> tuple[Any, ...]:
    """What a database looks like from outside."""
    pragmas = ("page_size", "encoding", "user_version", "application_id", "auto_vacuum", "journal_mode")
    return (
        *(query(path, f"PRAGMA {name}") for name in pragmas),
        query(path, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"),
    )


@pytest.mark.parametrize("mountpoint", [b"", b"/layers/aa/base", b"/layers/bb/delta", b"/owned/default"])
def test_catalogs_have_the_same_shape(
    ours: Site, stock: UnpackedRepository, mountpoint: bytes, tmp_path: Path
) -> None:
    mine, theirs = catalog_file(ours, mountpoint, tmp_path), catalog_file(stock, mountpoint, tmp_path)
    assert shape(mine) == shape(theirs)
    keys = "SELECT key FROM properties ORDER BY key"
    assert query(mine, keys) == query(theirs, keys)
    stable = "SELECT * FROM properties WHERE key IN ('schema', 'schema_revision', 'root_prefix', 'TTL')"
    assert sorted(query(mine, stable)) == sorted(query(theirs, stable))
    counters = "SELECT counter FROM statistics ORDER BY counter"
    assert query(mine, counters) == query(theirs, counters)


@pytest.mark.parametrize(
    ("mountpoint", "made_up"),
    [
        (b"/layers/aa/base", [b"/usr/lib/" + b"long" * 40]),
        (
            b"/layers/bb/delta",
            [b"/delta", b"/etc", b"/var", b"/var/lib", b"/var/lib/new/deep", b"/bin", b"/abs"],
        ),
    ],
)
def test_rows_are_the_same_but_for_our_decisions(
    ours: Site, stock: UnpackedRepository, mountpoint: bytes, made_up: list[bytes], tmp_path: Path
) -> None:
    mine = rows(catalog_file(ours, mountpoint, tmp_path))
    theirs = rows(catalog_file(stock, mountpoint, tmp_path))
    assert mine.keys() == theirs.keys()
    different: dict[bytes, dict[str, tuple[Any, Any]]] = {}
    for key, row in mine.items():
        for column, value in row.items():
            if theirs[key][column] != value:
                different.setdefault(row["name"], {})[column] = (theirs[key][column], value)

    # Directories that the tar does not have: the stock server gives them to nobody, as of now.
    for path in made_up:
        found = different.pop(path.rpartition(b"/")[2])
        assert {column: now for column, (_, now) in found.items() if column != "mtime"} == {
            "uid": 0,
            "gid": 0,
        }
        assert {before for column, (before, _) in found.items() if column != "mtime"} == {0xFFFFFFFF}
        assert found["mtime"][1] == 1_700_000_000  # as old as what made it necessary
    if mountpoint.endswith(b"delta"):
        # A directory that comes after what is in it: the stock server leaves what it had made up.
        assert {column: now for column, (_, now) in different.pop(b"new").items()} == {
            "mode": 0o042750,
            "mtime": 1_700_000_000,
            "uid": 5,
            "gid": 6,
        }
    # The size of a symbolic link is the length of its target, as the stock server's own publish has it.
    for name in [name for name, found in different.items() if set(found) == {"size"}]:
        (before, now) = different.pop(name)["size"]
        assert before == 0
        assert now == len(mine[next(key for key, row in mine.items() if row["name"] == name)]["symlink"])
    assert different.pop(b".cvmfscatalog").keys() == {"mtime"}

    if mountpoint.endswith(b"base"):
        # Hard links are groups, not copies.
        for name in (b"busybox", b"sh", b"ls", b"cat"):
            assert different.pop(name) == {"hardlinks": (1, 1 << 32 | 4)}
        # Extended attributes and fractions of seconds are kept.
        xattr = different.pop(b"xattr")
        assert set(xattr) == {"xattr"}
        assert xattr["xattr"][0] is None
        assert different.pop(b"frac") == {"mtimens": (None, 123_456_789)}
    else:
        assert different.pop(b"hl") == {"hardlinks": (1, 1 << 32 | 2)}
        assert different.pop(b"leading-slash") == {"hardlinks": (1, 1 << 32 | 2)}
    assert different == {}


@pytest.mark.parametrize("mountpoint", [b"/layers/aa/base", b"/layers/bb/delta"])
def test_counters_are_the_same_but_for_extended_attributes(
    ours: Site, stock: UnpackedRepository, mountpoint: bytes, tmp_path: Path
) -> None:
    mine, theirs = (
        dict(query(catalog_file(one, mountpoint, tmp_path), "SELECT * FROM statistics"))
        for one in (ours, stock)
    )
    if mountpoint.endswith(b"base"):
        assert (theirs.pop(b"self_xattr"), mine.pop(b"self_xattr")) == (0, 1)
    assert mine == theirs


def test_objects_have_the_same_names(ours: Site, stock: UnpackedRepository) -> None:
    """The zlib engine makes the very bytes of the stock server, so that both find each other's objects."""

    def objects(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.glob("data/??/*") if not path.name[-1].isupper()}

    only_theirs = objects(stock.root) - objects(ours.storage)
    for name in objects(ours.storage) - objects(stock.root):
        pytest.fail(f"{name} is not among the stock server's objects")
    # The welcome file of a new repository, and the files of the tars that were not ingested here.
    tars = require_fixtures() / "ingest" / "tars"
    with tarfile.open(tars / "nocat.tar.gz") as archive:
        others = sum(1 for member in archive if member.isreg() and member.size)
    assert len(only_theirs) == 1 + others
    for name in objects(ours.storage):
        assert (ours.storage / name).read_bytes() == (stock.root / name).read_bytes()


def test_a_new_repository_has_the_stock_server_s_files(tmp_path: Path) -> None:
    (tmp_path / "stock").mkdir()
    stock, ours = unpack("empty", tmp_path / "stock"), Site(tmp_path / "ours", STOCK_OPTIONS)

    def layout(root: Path) -> set[tuple[str, int]]:
        """Files and directories with their modes; the digests of objects are different, their form is not."""
        names = {}
        for path in root.rglob("*"):
            if path.name != ".lock":
                name = re.sub(r"^data/(..)/[0-9a-f]{38}", r"data/\1/…", str(path.relative_to(root)))
                names[name] = path.stat().st_mode
        plain = {(name, mode) for name, mode in names.items() if "…" not in name}
        return plain | {(name[-1], mode) for name, mode in names.items() if "…" in name}

    assert layout(ours.storage) == {one for one in layout(stock.root) if one[0] != "…"}
    master = ".cvmfs_master_replica"
    assert (ours.storage / master).read_bytes() == (stock.root / master).read_bytes()


def lines(site: Site | UnpackedRepository, name: str) -> tuple[list[str], Letter]:
    root = site.storage if isinstance(site, Site) else site.root
    letter = Letter.parse((root / name).read_bytes())
    return letter.body.decode().splitlines(), letter


def test_manifest_and_whitelist_have_the_same_lines(ours: Site, stock: UnpackedRepository) -> None:
    (mine, my_letter), (theirs, their_letter) = (
        lines(ours, ".cvmfspublished"),
        lines(stock, ".cvmfspublished"),
    )
    assert [line[0] for line in mine] == [line[0] for line in theirs]
    same = set("RDGA")
    assert [line for line in mine if line[0] in same] == [line for line in theirs if line[0] in same]
    assert len(my_letter.signature) == len(their_letter.signature) == 256
    (mine, my_letter), (theirs, their_letter) = (
        lines(ours, ".cvmfswhitelist"),
        lines(stock, ".cvmfswhitelist"),
    )
    patterns = [r"\d{14}", r"E\d{14}", r"N\S+", r"([0-9A-F]{2}:){19}[0-9A-F]{2}"]
    for whitelist in (mine, theirs):
        assert [bool(re.fullmatch(*both)) for both in zip(patterns, whitelist, strict=True)] == [True] * 4
    assert mine[2] == f"N{FQRN}"
    assert len(my_letter.signature) == len(their_letter.signature) == 256


def test_reflog_and_history_have_the_same_shape(
    ours: Site, stock: UnpackedRepository, tmp_path: Path
) -> None:
    histories = []
    sites: tuple[Site | UnpackedRepository, ...] = (ours, stock)
    for number, site in enumerate(sites):
        root = site.storage if isinstance(site, Site) else site.root
        manifest = Manifest.parse(lines(site, ".cvmfspublished")[1].body)
        assert manifest.reflog == Digest.of((root / ".cvmfsreflog").read_bytes())
        assert manifest.history is not None
        path = tmp_path / f"history-{number}"
        path.write_bytes(read_object(LocalStorage(root), ObjectName(manifest.history, Suffix.HISTORY)))
        histories.append(path)
    mine, theirs = histories
    assert shape(mine) == shape(theirs)
    assert shape(ours.storage / ".cvmfsreflog") == shape(stock.root / ".cvmfsreflog")
    for path, fqrn in ((mine, FQRN), (theirs, "ingest.test.org")):
        assert query(path, "SELECT key FROM properties ORDER BY rowid") == [
            *((b"schema",), (b"schema_revision",), (b"fqrn",), (b"previous_revision",)),
        ]
        assert query(path, "SELECT value FROM properties WHERE key = 'fqrn'") == [(fqrn.encode(),)]
        assert query(path, "SELECT * FROM branches") == [(b"", None, 0)]
        ((trunk, description, channel, branch),) = query(
            path, "SELECT name, description, channel, branch FROM tags WHERE name = 'trunk'"
        )
        assert (trunk, description, channel, branch) == (b"trunk", b"current HEAD", 0, b"")
        ((description,),) = query(path, "SELECT description FROM tags WHERE name = 'trunk-previous'")
        assert description == b"default undo target"
        generic = [name for (name,) in query(path, "SELECT name FROM tags") if name.startswith(b"generic")]
        assert generic
        assert all(re.fullmatch(rb"generic(_\d+)?-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one) for one in generic)
    kinds = "SELECT DISTINCT type FROM refs ORDER BY type"
    assert query(ours.storage / ".cvmfsreflog", kinds) == query(stock.root / ".cvmfsreflog", kinds)
    first = "SELECT type FROM refs ORDER BY rowid LIMIT 1"
    assert query(ours.storage / ".cvmfsreflog", first) == query(stock.root / ".cvmfsreflog", first)


def test_root_entries_are_keyed_alike(ours: Site, stock: UnpackedRepository, tmp_path: Path) -> None:
    for site in (ours, stock):
        path = catalog_file(site, b"", tmp_path)
        ((parent_1, parent_2, flags, name),) = query(
            path,
            "SELECT parent_1, parent_2, flags, name FROM catalog "
            f"WHERE md5path_1 = {PathKey.of(b'').first} AND md5path_2 = {PathKey.of(b'').second}",
        )
        assert (parent_1, parent_2, flags, name) == (0, 0, 1, b"")
