"""Transactions: counters, references and both sides of mountpoints in step; all of it visible, or nothing."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.errors import BusyError, IngestError, PublisherError, StorageError
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.repository import MANIFEST, REFLOG
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.catalog.entry import EntryFlag
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.history import History, Tag
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog
from tests.support.entries import Item, directory, file, hardlink
from tests.support.storage_site import FQRN, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def references(site: Site) -> list[Reference]:
    reflog = Reflog.open(site.storage / REFLOG, fqrn=FQRN)
    found = reflog.references()
    reflog.close()
    return found


def tags(site: Site) -> list[Tag]:
    manifest = site.open().manifest()
    assert manifest.history is not None
    path = site.place / "history"
    path.write_bytes(read_object(LocalStorage(site.storage), ObjectName(manifest.history, Suffix.HISTORY)))
    history = History.open(path, fqrn=FQRN)
    found = history.tags()
    history.close()
    return found


def test_layers_are_nested_catalogs_that_count_upwards(site: Site) -> None:
    site.publish({b"/layers/one": [file("/a/f", b"12345"), file("/g", b"1")], b"/layers/two": []})
    root, one = site.catalog(), site.catalog(b"/layers/one")
    assert {reference.path for reference in root.nested()} == {b"/layers/one", b"/layers/two"}
    assert root.counters.self_ == Tally(dir=4, nested=2)
    assert root.counters.subtree == Tally(dir=3, regular=2 + 2, file_size=6)  # with markers
    assert one.counters.self_ == Tally(dir=2, regular=2 + 1, file_size=6)
    assert one.counters.subtree == Tally()
    outside, inside = root.lookup(b"/layers/one"), one.lookup(b"/layers/one")
    assert outside is not None
    assert inside is not None
    assert outside.flags == EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT
    assert inside.flags == EntryFlag.DIRECTORY | EntryFlag.NESTED_ROOT
    assert inside._replace(flags=outside.flags, row=outside.row) == outside
    layers, top = root.lookup(b"/layers"), root.lookup(b"")
    assert layers is not None
    assert top is not None
    assert (layers.linkcount, top.linkcount, layers.mtime) == (4, 3, int(site.clock))
    root.close()
    one.close()
    assert site.findings() == []


def test_rows_stay_where_they_are(site: Site) -> None:
    def rows(mountpoint: bytes) -> dict[bytes, int]:
        catalog = site.catalog(mountpoint)
        top = catalog.lookup(mountpoint)
        assert top is not None
        found = {entry.name: entry.row for entry in (top, *catalog.listing(mountpoint))}
        catalog.close()
        return found

    site.publish({b"/layers/one": [file("/f", b"1"), file("/g", b"1")], b"/.layers/two": [], b"/z": []})
    before, inside = rows(b""), rows(b"/layers/one")
    assert (before[b""], inside[b"one"]) == (1, 1)
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/.layers/three", [])
        transaction.write_file(b"/layers/one/new", b"")
        transaction.write_file(b"/layers/one/f", b"other")
        transaction.remove(b"/z")
        transaction.publish()
    assert rows(b"") == {name: row for name, row in before.items() if name != b"z"}
    assert rows(b"/layers/one").items() > inside.items()
    assert site.findings() == []


def test_nested_catalogs_in_nested_catalogs(site: Site) -> None:
    site.publish({b"/a": [file("/f", b"1")]})
    site.publish({b"/a/b/c": [file("/f", b"22")]})
    site.publish({b"/a/b/c/d": [file("/f", b"333")]})
    a, root = site.catalog(b"/a"), site.catalog()
    assert a.counters.self_ == Tally(dir=3, regular=1 + 1, file_size=1, nested=1)  # with a marker
    assert a.counters.subtree == Tally(dir=3, regular=2 + 2, file_size=5, nested=1)
    assert root.counters.subtree == Tally(dir=6, regular=3 + 3, file_size=6, nested=2)
    assert (a.properties["revision"], root.properties["revision"]) == ("3", "4")
    a.close()
    root.close()
    assert site.findings() == []
    assert site.names() == {
        b"",
        *(b"/a", b"/a/f", b"/a/b"),
        *(b"/a/b/c", b"/a/b/c/f", b"/a/b/c/d", b"/a/b/c/d/f"),
    }
    site.publish({}, remove=[b"/a/b"])
    assert site.names() == {b"", b"/a", b"/a/f"}
    assert site.findings() == []


def test_a_mountpoint_s_two_entries_stay_in_step(site: Site) -> None:
    site.publish({b"/a": [directory("", 0o700, uid=5, mtime=1)]})
    site.publish({b"/a/b": []})
    root, a = site.catalog(), site.catalog(b"/a")
    outside, inside = root.lookup(b"/a"), a.lookup(b"/a")
    assert outside is not None
    assert inside is not None
    assert inside._replace(flags=outside.flags, row=outside.row) == outside
    assert (outside.linkcount, outside.uid, outside.mtime) == (3, 5, int(site.clock))
    root.close()
    a.close()


def test_ingesting_again_replaces_everything(site: Site) -> None:
    site.publish({b"/l": [file("/old", b"1"), hardlink("/older", "/old")], b"/l/deep/er": [file("/x")]})
    site.publish({b"/l": [file("/new", b"22")]})
    assert site.names() == {b"", b"/l", b"/l/new"}
    assert site.findings() == []
    catalog = site.catalog(b"/l")
    assert catalog.properties["revision"] == "1"
    catalog.close()


def test_files_and_plain_directories_can_be_replaced_and_removed(site: Site) -> None:
    site.publish({b"/x/y/z/l": [file("/f")]})
    site.publish({}, remove=[b"/x/y"])
    assert site.names() == {b"", b"/x"}
    x = site.tree()[b"/x"][0]
    assert (x.linkcount, x.mtime) == (2, int(site.clock))
    assert site.findings() == []
    site.publish({b"/x": []})
    assert site.findings() == []


def test_within_one_transaction(site: Site) -> None:
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/a", [file("/1")])
        transaction.ingest(b"/a", [file("/2")])
        transaction.ingest(b"/a/b", [file("/3")])
        transaction.ingest(b"/gone", [file("/4")])
        transaction.ingest(b"/gone/with", [file("/5")])
        transaction.remove(b"/gone")
        assert transaction.lookup(b"/gone") is None
        found = transaction.lookup(b"/a/b")
        assert found is not None
        assert found.is_directory
        transaction.publish()
        with pytest.raises(PublisherError, match="already been published"):
            transaction.publish()
    assert site.names() == {b"", b"/a", b"/a/2", b"/a/b", b"/a/b/3"}
    assert site.findings() == []


def test_several_layers_at_once(site: Site) -> None:
    with Transaction(site.open()) as transaction:
        threads = [
            threading.Thread(
                target=transaction.ingest,
                args=(b"/layers/%d" % number, [file(f"/{i}", b"%d %d" % (number, i)) for i in range(200)]),
            )
            for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transaction.publish()
    assert len(site.names()) == 2 + 6 * 201
    assert site.findings() == []


@pytest.mark.parametrize("path", [b"", b"/", b"relative", b"/a//b", b"/a/", b"/a/../b", b"/" + b"n" * 256])
def test_odd_places_are_refused(site: Site, path: bytes) -> None:
    with Transaction(site.open()) as transaction:
        with pytest.raises(PublisherError, match="not an absolute path"):
            transaction.ingest(path, [])
        with pytest.raises(PublisherError, match="not an absolute path"):
            transaction.remove(path)


def test_what_is_not_there_cannot_be_removed(site: Site) -> None:
    site.publish({b"/l": [file("/f")]})
    with Transaction(site.open()) as transaction:
        for path in (b"/none", b"/l/none", b"/l/f/deeper"):
            with pytest.raises(PublisherError, match="there is nothing at"):
                transaction.remove(path)
        with pytest.raises(PublisherError, match="in the way"):
            transaction.ingest(b"/l/f/deeper", [])


def test_a_revision_is_recorded_in_manifest_history_and_reflog(site: Site) -> None:
    first = site.open().manifest()
    before = references(site)
    site.publish({b"/l": [file("/f")]})
    second = site.open().manifest()
    assert (first.revision, second.revision) == (1, 2)
    assert (second.timestamp, second.fqrn, second.ttl) == (int(site.clock), FQRN, 240)
    assert second.garbage_collectable
    assert second.certificate == first.certificate
    assert second.metainfo == first.metainfo
    assert second.reflog == Digest.of((site.storage / REFLOG).read_bytes())
    assert second.history is not None
    expected = [
        Reference(second.root, ReferenceKind.CATALOG, int(site.clock)),
        Reference(second.history, ReferenceKind.HISTORY, int(site.clock)),
    ]
    assert references(site) == before + expected
    assert {tag.name: (tag.root, tag.revision) for tag in tags(site)} == {
        "trunk": (second.root, 2),
        "trunk-previous": (first.root, 1),
    }
    root = site.catalog()
    assert root.properties["previous_revision"] == first.root.text
    assert (root.properties["revision"], root.properties["TTL"]) == ("2", "240")
    root.close()


def test_tags(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(auto_tag=True))
    with Transaction(site.open()) as transaction:
        manifest = transaction.publish(tag="release", description="the first")
    with Transaction(site.open()) as transaction:
        transaction.publish()
    found = {tag.name: tag for tag in tags(site)}
    assert set(found) == {
        "generic-2023-11-14T22:13:20Z",
        "generic_1-2023-11-14T22:13:20Z",
        "generic_2-2023-11-14T22:13:20Z",
        "release",
        "trunk",
        "trunk-previous",
    }
    assert (found["release"].root, found["release"].description) == (manifest.root, "the first")
    assert site.findings() == []


class Recording(LocalStorage):
    """Remembers what is put and flushed, in order."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.calls: list[str] = []

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(name if name.startswith(".") else name[-1])
        super().put(name, data)

    def flush(self) -> None:
        self.calls.append("flush")
        super().flush()


def test_the_manifest_comes_last_and_after_all_else_is_safe(site: Site) -> None:
    repository = site.open()
    storage = Recording(site.storage)
    repository.storage = storage
    with Transaction(repository) as transaction:
        transaction.ingest(b"/l", [file("/f", b"new")])
        data = len(storage.calls)
        transaction.publish()
    assert data == 2  # the file, and what the marker and all other empty files are
    assert storage.calls[data:] == ["C", "C", "H", REFLOG, "flush", MANIFEST, "flush"]


class Breaking(LocalStorage):
    """Fails when a file with a certain ending is put."""

    ending = ""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        if self.ending and name.endswith(self.ending):
            raise StorageError(f"no {name} today")
        super().put(name, data)


@pytest.mark.parametrize("ending", ["C", "H", REFLOG])
def test_a_publish_that_fails_leaves_everything_as_it_was(site: Site, ending: str) -> None:
    site.publish({b"/l": [file("/f", b"one")]})
    before = site.files()
    repository = site.open()
    storage = Breaking(site.storage)
    repository.storage = storage
    with Transaction(repository) as transaction:
        transaction.ingest(b"/l", [file("/f", b"two")])
        storage.ending = ending
        with pytest.raises(StorageError, match="today"):
            transaction.publish()
    assert site.files() == before
    site.publish({b"/l": [file("/f", b"three")]})
    assert site.tree(b"/l")[b"/f"][1] == b"three"
    assert site.findings() == []


def roots_of_storage(site: Site) -> set[Digest]:
    return {Digest.parse(path.parent.name + path.name[:-1]) for path in site.storage.glob("data/??/*C")}


def test_a_manifest_that_may_have_arrived_keeps_its_objects(site: Site) -> None:
    """Its upload failed, as far as we know; but if a reader sees it, then with all that it refers to."""
    site.publish({b"/l": [file("/f", b"one")]})
    repository = site.open()
    storage = Breaking(site.storage)
    repository.storage = storage
    with Transaction(repository) as transaction:
        transaction.ingest(b"/l", [file("/f", b"two")])
        storage.ending = MANIFEST
        with pytest.raises(StorageError, match="today"):
            transaction.publish()
    assert site.tree(b"/l")[b"/f"][1] == b"one"
    assert site.findings() == []
    assert len({reference.digest for reference in references(site)} & roots_of_storage(site)) == 4
    site.publish({b"/l": [file("/f", b"three")]})
    assert site.findings() == []


def test_a_transaction_that_is_left_leaves_everything_as_it_was(site: Site) -> None:
    before = site.files()
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/l", [file("/f", os.urandom(100))])

    def entries() -> Iterator[Item]:
        yield directory("/d")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Transaction(site.open()) as transaction:
        transaction.ingest(b"/l", entries())
    assert site.files() == before


def test_a_failed_layer_does_not_spoil_the_others(site: Site) -> None:
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/one", [file("/f")])
        with pytest.raises(IngestError):
            transaction.ingest(b"/two", [file("/f"), hardlink("/g", "/none")])
        transaction.publish()
    assert site.names() == {b"", b"/one", b"/one/f"}
    assert site.findings() == []


def test_one_transaction_at_a_time(site: Site) -> None:
    with Transaction(site.open()), pytest.raises(BusyError), Transaction(site.open()):
        pass


def test_a_damaged_catalog_is_not_built_upon(site: Site) -> None:
    root = site.storage / ObjectName(site.open().manifest().root, Suffix.CATALOG).path
    root.write_bytes(root.read_bytes()[:-1] + b"x")
    with Transaction(site.open()) as transaction, pytest.raises(Exception, match="digest does not match"):
        transaction.ingest(b"/l", [])


def test_another_publisher_s_reflog_is_kept(site: Site) -> None:
    """After a crash between reflog and manifest the reflog lists more than the manifest knows of."""
    lost = Reference(Digest.of(b"lost"), ReferenceKind.CATALOG, 5)
    reflog = Reflog.open(site.storage / REFLOG, fqrn=FQRN)
    reflog.add(lost)
    reflog.finish()
    site.publish({})
    assert lost in references(site)


def test_the_metainfo_is_what_clients_show(site: Site) -> None:
    manifest = site.open().manifest()
    assert manifest.metainfo is not None
    metainfo = json.loads(
        read_object(LocalStorage(site.storage), ObjectName(manifest.metainfo, Suffix.METAINFO))
    )
    assert set(metainfo) == {
        *("administrator", "email", "organisation", "description", "url"),
        *("recommended-stratum0", "recommended-stratum1s", "custom"),
    }


def test_nothing_is_left_in_the_temporary_directory(site: Site, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.support.entries import *; from tests.support.storage_site import *\n"
        "site = object.__new__(Site); site.storage = Path(sys.argv[1]); site.keys = Path(sys.argv[2])\n"
        "site.options = None; site.clock = 1_800_000_000.0\n"
        "site.publish({b'/l': [file('/f', bytes(10))]})\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, site.storage, site.keys],
        check=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert list(scratch.iterdir()) == []


def test_a_small_file_is_written_replaced_and_read(site: Site) -> None:
    site.publish({b"/layers/one": [file("/a", b"1")]})
    for content in (b"first", b"second, and longer"):
        with Transaction(site.open()) as transaction:
            transaction.write_file(b"/layers/one/records/who.json", content)
            transaction.write_file(b"/at the top", content)
            assert transaction.read_file(b"/at the top") == content
            assert transaction.read_file(b"/nowhere") is None
            transaction.publish()
        assert site.tree(b"/layers/one/records/who.json")[b""][1] == content
        assert site.findings() == []
    with Transaction(site.open()) as transaction:
        assert transaction.read_file(b"/layers/one/records/who.json") == b"second, and longer"
        with pytest.raises(PublisherError, match="not a small file"):
            transaction.read_file(b"/layers")
        with pytest.raises(PublisherError, match="in the way"):
            transaction.write_file(b"/at the top/below", b"")


def test_only_catalogs_that_changed_are_stored(site: Site) -> None:
    site.publish({b"/a": [], b"/a/one": [file("/f", b"1")], b"/b": [directory("/d"), file("/d/f", b"2")]})
    before = {name for name in site.files() if name.endswith("C")}
    repository = site.open()
    with Transaction(repository) as transaction:
        assert transaction.lookup(b"/b/d/f") is not None
        assert [entry.name for entry in transaction.listing(b"/b/d")] == [b"f"]
        assert transaction.listing(b"/a/none") == []
        transaction.write_link(b"/a/one/link", b"../../b")
        transaction.publish()
    new = {name for name in site.files() if name.endswith("C")} - before
    assert len(new) == 3  # the root, /a, /a/one
    entry, _ = site.tree(b"/a/one/link")[b""]
    assert (entry.symlink, entry.mode) == (b"../../b", 0o120777)
    assert site.findings() == []
