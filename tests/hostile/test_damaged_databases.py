"""Catalogs, histories and reflogs that are damaged page by page: each is read whole, or refused."""

import sqlite3
import stat
import tempfile
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.kernel.erofs import write_image
from cvmfs_graphdriver.kernel.fuse.wire import StatFs
from cvmfs_graphdriver.planes.erofs.flatten import CatalogAt, LayerTree, flatten
from cvmfs_graphdriver.planes.filesystem.attributes import attributes_of
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.loader import CatalogLoader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.catalog.xattr import encode_xattrs, parse_xattrs
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.history import History, Tag
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog
from tests.support.fuzzing import REFUSED, fuzz
from tests.support.mutations import COSTLY_INPUTS, INPUTS
from tests.support.pages import damaged_databases
from tests.support.project import FAST
from tests.support.storage_site import FQRN, Site

DIRECTORY = DirectoryEntry(b"", stat.S_IFDIR | 0o755, 4096, 5, flags=EntryFlag.DIRECTORY, linkcount=2)
FILE = DirectoryEntry(b"", stat.S_IFREG | 0o644, 9, 5, 7, flags=EntryFlag.FILE, digest=Digest.of(b"f"))
LINK = DirectoryEntry(b"", stat.S_IFLNK | 0o777, flags=EntryFlag.FILE | EntryFlag.SYMLINK, symlink=b"t" * 600)
DEVICE = DirectoryEntry(b"", stat.S_IFCHR | 0o600, flags=EntryFlag.FILE | EntryFlag.SPECIAL, rdev=0x103)
CHUNKED = FILE._replace(digest=None, flags=EntryFlag.FILE | EntryFlag.CHUNKED)
XATTRS = encode_xattrs({b"user.a": b"b" * 200, b"security.capability": b"\1" * 20})


def new_catalog(path: Path, entries: int) -> None:
    """A catalog of every kind of row, in trees of some depth."""
    with CatalogWriter.create(path, mountpoint=b"", now=5) as writer:
        writer.add(b"", DIRECTORY)
        for number in range(entries):
            for kind, entry in enumerate((DIRECTORY, FILE, LINK, DEVICE, CHUNKED)):
                name = b"%d-%d" % (kind, number)
                group = number // 2 if kind == 1 and number < 8 else 0
                xattr = XATTRS if number % 3 == 0 else b""
                entry = entry._replace(name=name, xattr=xattr, hardlink_group=group)  # noqa: PLW2901
                chunks = (Chunk(0, 4, Digest.of(b"0")), Chunk(4, 5, Digest.of(b"1")))
                writer.add(b"/" + name, entry, chunks if kind == 4 else ())
        for number in range(0, entries, 4):
            path_of = b"/0-%d" % number
            writer.put_nested(CatalogReference(path_of, Digest.of(path_of), 4096))
            writer.add(path_of + b"/.wh.gone", FILE._replace(name=b".wh.gone"))
        writer.set_property("voms_authz", "/x" * 2000)
        writer.advance(now=9, previous=Digest.of(b"before"))
        writer.finish()


def new_history(path: Path, tags: int) -> None:
    history = History.create(path, fqrn=FQRN)
    for number in range(tags):
        history.put(Tag(f"v{number}", Digest.of(b"%d" % number), number, number, "words " * (number * 40), 9))
    history.finish(previous=Digest.of(b"older"))


def new_reflog(path: Path, references: int) -> None:
    reflog = Reflog.create(path, fqrn=FQRN)
    for number in range(references):
        reflog.add(Reference(Digest.of(b"%d" % number), ReferenceKind(number % 4), number))
    reflog.finish()


def variants(new: Callable[[Path, int], None], directory: Path, table: str) -> list[bytes]:
    """Files as the format allows them: small, large, with free pages, other page sizes and encodings."""
    statements = {
        "small": (),
        "large": (),
        "gaps": (f"DELETE FROM {table} WHERE rowid % 3",),
        "pages": ("PRAGMA page_size = 4096", "VACUUM"),
        "tight": ("PRAGMA page_size = 512", "PRAGMA auto_vacuum = 2", "VACUUM"),
    }
    contents = []
    for name, each in statements.items():
        path = directory / name
        new(path, 3 if name == "small" else 12)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in each:
                connection.execute(statement)
        contents.append(path.read_bytes())
    return contents


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where damaged files are written: in memory, if possible."""
    return FAST or tmp_path


def read_catalog(path: Path) -> None:
    """Everything that clients, planes and ``repo check`` ask of a catalog."""
    with closing(Catalog.open(path, mountpoint=b"")) as catalog:
        _ = catalog.revision, catalog.ttl, catalog.entries, catalog.max_row
        total = catalog.counters.total
        StatFs(1, 1, total.entries, total.entries).pack()
        assert len(catalog.properties) < 1000
        catalog.directories_with(b".wh.")
        assert len(catalog.path_with(Digest.of(b"")) or b"") < 100 * 256
        references = catalog.nested()
        assert sum(1 for _ in catalog.objects()) <= catalog.entries + 1000
        pending, seen = [b""], 0
        while pending:
            directory = pending.pop()
            for entry in catalog.listing(directory, hidden=True):
                seen += 1
                where = directory + b"/" + entry.name
                found = catalog.lookup(where)
                assert found is None or found.name == entry.name or found.row != entry.row
                node = Node(where, entry.row, 1, entry, None)  # type: ignore[arg-type]
                attributes_of(node, entry.symlink, UNCHANGED, UNCHANGED).pack()
                if entry.xattr:
                    parse_xattrs(entry.xattr)
                if entry.is_chunked:
                    catalog.chunks(where)
                if entry.hardlink_group:
                    catalog.group_row(entry.hardlink_group)
                catalog.nested_for(where)
                if seen < 20:
                    catalog.entry_at(entry.row)
                if entry.is_directory:
                    pending.append(where)
        at = CatalogAt(Digest.of(b""), 0, catalog)
        if not references:
            write_image(flatten([LayerTree(FQRN, b"", lambda _: nullcontext(at))]))


def change_catalog(path: Path) -> None:
    """What publishers do with a catalog."""
    with CatalogWriter.open(path, mountpoint=b"") as writer:
        writer.nested()
        for entry in writer.listing(b""):
            if entry.is_chunked:
                writer.chunks(b"/" + entry.name, entry)
        loader = CatalogLoader(writer)
        loader.put(b"/new", FILE._replace(name=b"new"))
        loader.settle()
        writer.advance(now=9, previous=None)
        writer.finish()


def read_history(path: Path) -> None:
    with closing(History.read(path, fqrn=FQRN)) as history:
        history.tags()
        history.tag("v1")
        history.at(5)


def change_history(path: Path) -> None:
    with closing(History.open(path, fqrn=FQRN)) as history:
        history.put(Tag("new", Digest.of(b""), 1, 1))
        history.remove("v1")
        history.finish(previous=None)


def change_reflog(path: Path) -> None:
    with closing(Reflog.open(path, fqrn=FQRN)) as reflog:
        reflog.references()
        reflog.add(Reference(Digest.of(b""), ReferenceKind.CATALOG, 5))
        reflog.finish()


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("new", "table", "read", "change"),
    [
        (new_catalog, "catalog", read_catalog, change_catalog),
        (new_history, "tags", read_history, change_history),
        (new_reflog, "refs", change_reflog, change_reflog),
    ],
    ids=["catalogs", "histories", "reflogs"],
)
def test_damaged_databases_are_read_or_refused(  # type: ignore[no-untyped-def]
    new, table, read, change, tmp_path: Path, scratch: Path
) -> None:
    path = scratch / f"{tmp_path.name}.damaged"
    number = 0

    def use(content: bytes) -> None:
        nonlocal number
        number += 1
        path.write_bytes(content)
        if number % 10 == 0:
            change(path)
        else:
            read(path)

    try:
        outcomes = fuzz(use, damaged_databases(variants(new, tmp_path, table)))
    finally:
        path.unlink()
    assert INPUTS * 0.1 < outcomes[REFUSED] < INPUTS * 0.9


@pytest.mark.fuzz
def test_repo_check_finds_what_is_wrong(tmp_path: Path) -> None:
    for table in ("catalog", "tags"):
        (tmp_path / table).mkdir()
    catalogs = variants(new_catalog, tmp_path / "catalog", "catalog")
    histories = variants(new_history, tmp_path / "tags", "tags")
    pairs = zip(damaged_databases(catalogs, COSTLY_INPUTS), damaged_databases(histories), strict=False)

    with tempfile.TemporaryDirectory(dir=FAST) as place:
        site = Site(Path(place))
        repository = site.open()
        sound = repository.manifest()

        def use(pair: tuple[bytes, bytes]) -> None:
            names = []
            for content, suffix in zip(pair, (Suffix.CATALOG, Suffix.HISTORY), strict=True):
                stored = compress(content)
                names.append(ObjectName(Digest.of(stored), suffix))
                repository.storage.put(names[-1].path, stored)
            root, history = (name.digest for name in names)
            repository.put_manifest(sound._replace(root=root, root_size=len(pair[0]), history=history))
            assert site.findings(contents=False)
            repository.storage.delete(name.path for name in names)

        fuzz(use, pairs)
