"""Garbage collection: everything that is retained stays readable, everything else goes, also when killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.care.gc import Collection, collect_garbage
from cvmfs_graphdriver.publisher.errors import BusyError, MissingObjectError, PublisherError
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.tags import delete_tag, list_tags, set_tag
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.chunking import ChunkSizes
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.reflog import Reflog
from tests.support.entries import file
from tests.support.project import PROJECT
from tests.support.storage_site import FQRN, Entries, Site

OPTIONS = RepositoryOptions(chunking=ChunkSizes(32_768, 65_537, 131_072))
BIG = random.Random(1).randbytes(300_000)


def layer(number: int) -> Entries:
    own = [file(f"/own{i}", b"%d %d" % (number, i)) for i in range(5)]
    return [*own, file("/shared", b"shared"), file("/big", BIG if number % 2 else BIG[::-1])]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, OPTIONS)
    for number in range(4):
        site.publish({b"/layers/%d" % number: layer(number)})
    return site


def collect(site: Site, *, keep: float = 0, dry_run: bool = False) -> Collection:
    return collect_garbage(site.open(), site.place / "cache/index", since=site.clock - keep, dry_run=dry_run)


def data_objects(site: Site) -> set[str]:
    return {path.name for path in site.storage.glob("data/??/*") if path.name[-1] not in "CHX"}


def test_nothing_but_old_revisions_goes_at_first(site: Site) -> None:
    tree = site.tree()
    data = data_objects(site)
    found = collect(site)
    assert (found.retained_revisions, found.forgotten_revisions) == (2, 4)  # trunk and trunk-previous
    assert data_objects(site) == data
    assert site.tree() == tree
    assert site.findings() == []
    assert collect(site) == Collection(2, found.retained_objects, 0, 0, 0)


def test_what_was_removed_goes_and_the_rest_is_as_if_it_had_never_been(site: Site, tmp_path: Path) -> None:
    site.publish({}, remove=[b"/layers/1", b"/layers/3"])
    site.publish({})  # so that not even trunk-previous has them
    before = sum(len(data) for data in site.files().values())
    found = collect(site)
    assert found.size > 0
    assert abs(before - sum(len(data) for data in site.files().values()) - found.size) < 2048  # small files
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", OPTIONS)
    other.publish({b"/layers/%d" % number: layer(number) for number in (0, 2)})
    other.publish({})
    collect(other)
    assert data_objects(site) == data_objects(other)
    for suffix in "CHXM":
        mine, theirs = (
            [p for p in s.storage.glob("data/??/*") if p.name[-1] == suffix] for s in (site, other)
        )
        assert len(mine) == len(theirs), suffix
    assert site.names() == other.names()
    assert site.findings() == other.findings() == []


def test_a_rehearsal_says_what_would_go_and_changes_nothing(site: Site) -> None:
    site.publish({}, remove=[b"/layers/1"])
    site.publish({})
    before = site.files()
    rehearsed = collect(site, dry_run=True)
    assert rehearsed.objects > 5
    assert site.files() == before
    assert collect(site) == rehearsed
    gone = before.keys() - site.files().keys()
    assert len(gone) == rehearsed.objects
    assert sum(len(before[name]) for name in gone) == rehearsed.size


def test_tags_keep_what_they_name(site: Site) -> None:
    set_tag(site.open(), "keep")
    (tag,) = (tag for tag in list_tags(site.open()) if tag.name == "keep")
    site.publish({}, remove=[b"/layers"])
    site.publish({})
    collect(site)
    assert site.findings(contents=True) == []  # which includes all tags
    assert (site.storage / ObjectName(tag.root, Suffix.CATALOG).path).exists()
    delete_tag(site.open(), "keep")
    assert collect(site).objects > 5
    assert site.findings() == []
    assert not (site.storage / ObjectName(tag.root, Suffix.CATALOG).path).exists()


def test_revisions_that_somebody_may_have_mounted_stay(site: Site) -> None:
    """A revision counts as long as it was the newest, not from when it was made."""
    old = site.open().manifest().root
    site.clock += 1000
    site.publish({}, remove=[b"/layers"])
    for _ in range(5):
        site.publish({})
    path = site.storage / ObjectName(old, Suffix.CATALOG).path
    data = data_objects(site)
    collect(site, keep=100)
    assert path.exists()
    assert data_objects(site) == data
    site.clock += 1000
    collect(site, keep=100)
    assert not path.exists()
    assert len(data_objects(site)) < len(data)
    assert site.findings() == []


def test_what_a_killed_publisher_left_goes(site: Site) -> None:
    names = ["data/ab/" + "cd" * 19, "data/ab/" + "cd" * 19 + "P", "data/00/" + "ef" * 19 + "C"]
    for name in names:
        (site.storage / name).write_bytes(b"lost")
    others = ["data/ab/README", "data/ab/" + "cd" * 19 + "-unknown thing", "data/ab/x" + "cd" * 19]
    for name in others:
        (site.storage / name).write_bytes(b"not ours")
    collect(site)
    assert [name for name in names if (site.storage / name).exists()] == []
    assert [name for name in others if not (site.storage / name).exists()] == []


def test_reflog_and_status_tell_of_it(site: Site) -> None:
    collect(site)
    reflog = Reflog.open(site.storage / ".cvmfsreflog", fqrn=FQRN)
    listed = {reference.digest for reference in reflog.references()}
    reflog.close()
    manifest = site.open().manifest()
    roots = {tag.root for tag in list_tags(site.open())}
    assert listed == roots | {manifest.certificate, manifest.history, manifest.metainfo}
    assert (site.storage / ".cvmfs_status.json").read_bytes() == (
        b'{\n  "last_gc": "Tue Nov 14 22:13:24 UTC 2023"\n}\n'
    )
    (site.storage / ".cvmfs_status.json").write_text('{"last_check": "x", "last_gc": "y"}')
    collect(site)
    assert json.loads((site.storage / ".cvmfs_status.json").read_text()) == {
        "last_check": "x",
        "last_gc": "Tue Nov 14 22:13:24 UTC 2023",
    }


def test_the_next_collection_reads_only_new_catalogs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = LocalStorage.get

    def get(self: LocalStorage, name: str, *, limit: int) -> bytes | None:
        if name.endswith("C"):
            read.append(name)
        return original(self, name, limit=limit)

    collect(site)
    site.publish({b"/layers/new": layer(7)})
    monkeypatch.setattr(LocalStorage, "get", get)
    collect(site)
    assert len(read) == 2  # the new root and the new layer
    (site.place / "cache/index").unlink()
    read.clear()
    collect(site)
    assert len(read) == 5 + 2
    assert site.findings() == []


def test_if_a_retained_catalog_is_missing_nothing_goes(site: Site) -> None:
    site.publish({}, remove=[b"/layers/1"])
    site.publish({})
    collect(site, dry_run=True)  # the index knows what is in it, which is no reason to go on without it
    catalog = site.catalog()
    (reference, *_) = catalog.nested()
    catalog.close()
    path = site.storage / ObjectName(reference.digest, Suffix.CATALOG).path
    data = path.read_bytes()
    path.unlink()
    before = site.files()
    with pytest.raises(MissingObjectError, match=path.name):
        collect(site)
    assert site.files() == before
    path.write_bytes(data)
    assert collect(site).objects > 0


def test_a_repository_that_must_not_be_collected(tmp_path: Path) -> None:
    site = Site(tmp_path, RepositoryOptions(garbage_collectable=False))
    with pytest.raises(PublisherError, match="is not garbage-collectable"):
        collect(site)


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_without_its_reflog_nothing_is_deleted(site: Site, damage: str) -> None:
    path = site.storage / ".cvmfsreflog"
    path.unlink()
    if damage == "another":
        reflog = Reflog.create(path, fqrn=FQRN)
        reflog.finish()
    before = site.files()
    with pytest.raises(PublisherError, match="reflog"):
        collect(site)
    assert site.files() == before


def test_an_index_that_is_none_is_named(site: Site) -> None:
    index = site.place / "cache/index"
    index.parent.mkdir()
    index.write_bytes(b"no database" * 1000)
    with pytest.raises(PublisherError, match=str(index)):
        collect(site)


def test_one_at_a_time(site: Site) -> None:
    with Transaction(site.open()), pytest.raises(BusyError):
        collect(site)


def test_readers_never_notice(site: Site) -> None:
    set_tag(site.open(), "keep")
    expected = site.tree()
    failures: list[BaseException] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                assert site.tree(b"/layers/0") == {
                    path[9:]: value for path, value in expected.items() if path.startswith(b"/layers/0")
                }
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
                failures.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(10):
        site.publish({b"/other": layer(100 + number)})
        collect(site)
    ended.set()
    thread.join()
    assert failures == []


def test_a_collection_that_dies_between_any_two_writes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LocalStorage.put
    left = 0

    def put(self: LocalStorage, name: str, data: bytes | bytearray | memoryview) -> None:
        nonlocal left
        if not left:
            raise InterruptedError(name)
        left -= 1
        original(self, name, data)

    tree = site.tree()
    deaths = []
    for writes in range(20):
        site.publish({})
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "put", put)
            left = writes
            try:
                collect(site)
            except InterruptedError as death:
                deaths.append(str(death))
            else:
                break
        assert site.findings() == []
        assert site.tree() == tree
    assert deaths == [".cvmfspublished", ".cvmfsreflog", ".cvmfspublished", ".cvmfs_status.json"]


COLLECTOR = """
import sys
from pathlib import Path
from cvmfs_graphdriver.publisher.care.gc import collect_garbage
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.repository import Repository
from tests.support.storage_site import FQRN
repository = Repository.open(FQRN, LocalStorage(Path(sys.argv[1])), Path(sys.argv[2]))
print("ready", flush=True)
collect_garbage(repository, Path(sys.argv[3]), since=4e9, wait=10)
"""


def test_a_collection_that_is_killed_anywhere(site: Site) -> None:
    dice = random.Random(5)
    for number in range(12):
        site.publish({b"/layers/1": [file(f"/{i}", b"%d %d" % (number, i)) for i in range(300)]})
        site.publish({})
        site.publish({})
        command = [sys.executable, "-c", COLLECTOR]
        command += map(str, (site.storage, site.keys, site.place / "cache/index"))
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=PROJECT, env={**os.environ, "TMPDIR": str(site.place)}
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(dice.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
        assert site.findings() == []
    collect(site)
    content = {entry.digest.hex[2:] for entry, _ in site.tree().values() if entry.digest is not None}
    content.add(Digest.of(compress(b"")).hex[2:])  # catalog markers are empty and hidden
    assert {name for name in data_objects(site) if name[-1] not in "PM"} == content
    assert len(content) == 300 + 15 + 2
    assert collect(site).objects == 0
    assert site.findings() == []
