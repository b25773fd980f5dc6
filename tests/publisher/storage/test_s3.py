"""Repositories in a real S3 store."""

import os
import random
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest
import urllib3

from cvmfs_graphdriver.publisher.care.check import RepositoryCheck
from cvmfs_graphdriver.publisher.care.gc import collect_garbage
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.errors import BusyError, StorageError
from cvmfs_graphdriver.publisher.ingest import objects
from cvmfs_graphdriver.publisher.keyring import Keyring, load_master_public_keys
from cvmfs_graphdriver.publisher.repository import MANIFEST
from cvmfs_graphdriver.publisher.storage import s3_lock
from cvmfs_graphdriver.publisher.storage.bucket import Bucket
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.publisher.storage.s3 import S3Storage
from cvmfs_graphdriver.publisher.storage.s3_lock import S3Lock
from cvmfs_graphdriver.publisher.storage.s3_settings import S3Settings
from cvmfs_graphdriver.publisher.storage.upstream import create_storage, open_storage, storage_at
from cvmfs_graphdriver.publisher.transaction import Transaction
from demo.seaweed import Seaweed
from tests.publisher.test_renewal import is_replicable
from tests.support.endless_publisher import endless_publisher
from tests.support.entries import directory, file, hardlink, symlink
from tests.support.mounts import wait_until
from tests.support.storage_site import FQRN, Site

KILLS = int(os.environ.get("KILLS", "5"))
"""How many times a publisher is killed; 50 and more for a long night."""


class S3Site(Site):
    """The same as a site on disk: same keys, same times, but its storage is a bucket."""

    def __init__(self, twin: Site, store: Seaweed, **settings: str) -> None:
        self.place = twin.place
        self.keys = twin.keys
        self.options = twin.options
        self.clock = 1_700_000_000.0
        self.configuration = store.configuration(f"b{secrets.token_hex(6)}", **settings)
        storage = create_storage(self.configuration, FQRN)
        with mock.patch.object(Keyring, "create", return_value=Keyring.load(FQRN, self.keys)):
            create_repository(FQRN, storage, self.keys, self.options, clock=lambda: self.clock)

    def at(self) -> Storage:
        return storage_at(self.configuration, FQRN)

    @property
    def bucket(self) -> Bucket:
        return Bucket(S3Settings.load(self.configuration))

    def files(self) -> dict[str, bytes]:
        bucket = self.bucket
        found = {}
        for each in bucket.objects(""):
            reader = bucket.open(each.key)
            assert reader is not None
            with reader:
                found[each.key.removeprefix(f"{FQRN}/")] = reader.read()
        return found

    def findings(self, *, contents: bool = True) -> list[str]:
        now = datetime.fromtimestamp(self.clock, UTC)
        keys = load_master_public_keys(FQRN, self.keys)
        return list(RepositoryCheck(self.at(), FQRN, keys, now=now, contents=contents).run())


@pytest.fixture
def site(tmp_path: Path, s3: Seaweed) -> S3Site:
    return S3Site(Site(tmp_path), s3)


def test_it_can_be_replicated(site: S3Site) -> None:
    assert is_replicable(site)


def tree(seed: int, count: int = 40) -> list[object]:
    dice = random.Random(seed)
    return [
        directory("/d", mtime=seed),
        *(file(f"/d/{n}", dice.randbytes(dice.randrange(60_000)), mtime=n) for n in range(count)),
        file("/empty"),
        file("/big", dice.randbytes(20_000_000)),
        hardlink("/d/same", "/d/1"),
        symlink("/l", b"d/0"),
    ]


@contextmanager
def many_processes() -> Iterator[None]:
    with mock.patch.object(objects, "_WORTH_WORKERS", 0):
        yield


def test_the_same_input_gives_the_same_objects_on_disk_and_in_s3(tmp_path: Path, s3: Seaweed) -> None:
    disk = Site(tmp_path)
    cloud = S3Site(disk, s3)
    for each in (disk, cloud):
        each.publish({b"/layers/a": tree(1), b"/layers/b": tree(2)})  # type: ignore[dict-item]
        with many_processes():
            each.publish({b"/layers/c": tree(3), b"/layers/a": tree(4)}, remove=[b"/layers/b"])  # type: ignore[dict-item]
        each.open().resign()
    assert cloud.files() == disk.files()
    assert cloud.findings() == []
    for each in (disk, cloud):
        each.clock += 30 * 86_400
        collect_garbage(
            each.open(), each.place / f"{type(each).__name__}.index", since=each.clock, dry_run=False, wait=0
        )
    assert cloud.files() == disk.files()


def test_headers_of_objects(site: S3Site, s3: Seaweed) -> None:
    site.publish({b"/a": [file("/f", b"content")]})
    names = sorted(site.files())
    base = f"http://{s3.host}/{site.bucket.settings.bucket}/{FQRN}"
    seen = set()
    for name in names:
        reply = urllib3.request("GET", f"{base}/{name}")  # as clients do: without any credentials
        assert reply.status == 200
        kind = "data" if name.startswith("data/") else "dot"
        seen.add((kind, reply.headers["Content-Type"], reply.headers["Cache-Control"]))
    assert seen == {
        ("data", "application/octet-stream", "max-age=259200"),
        ("dot", "application/x-cvmfs", "max-age=61"),
    }


def test_virtual_hosts_and_a_proxy(tmp_path: Path, s3: Seaweed) -> None:
    site = S3Site(
        Site(tmp_path),
        s3,
        HOST=s3.domain,
        PORT="80",
        DNS_BUCKETS="true",
        PROXY=f"http://{s3.host}",
    )
    site.publish({b"/a": [file("/f", b"content")]})
    assert site.findings() == []
    bucket = s3.bucket(site.bucket.settings.bucket)  # by path
    assert bucket.etag(f"{FQRN}/{MANIFEST}") is not None


def test_a_definition_is_the_same_storage_for_another_process(site: S3Site) -> None:
    again = open_storage(site.at().definition)
    assert isinstance(again, S3Storage)
    assert again.definition == site.at().definition
    assert again.get(MANIFEST, limit=1 << 20) == site.at().get(MANIFEST, limit=1 << 20)


def test_small_things(site: S3Site) -> None:
    storage = site.at()
    assert storage.get("data/aa/none", limit=1) is None
    assert storage.open("data/aa/none") is None
    assert not storage.has("data/aa/none")
    assert storage.size("data/aa/none") is None
    storage.put("data/aa/three", b"123")
    assert storage.get("data/aa/three", limit=3) == b"123"
    with pytest.raises(StorageError, match="exceeds the limit of 2 bytes"):
        storage.get("data/aa/three", limit=2)
    big = site.place / "big"
    big.write_bytes(random.Random(0).randbytes(70 << 20))  # more than one part
    storage.put_file("data/aa/big", big)
    reader = storage.open("data/aa/big")
    assert reader is not None
    with reader as source, big.open("rb") as expected:
        while data := source.read(1 << 20):
            assert data == expected.read(len(data))
        assert not expected.read(1)
    assert {("data/aa/three", 3), ("data/aa/big", 70 << 20)} <= set(storage.objects())
    storage.delete(["data/aa/three", "data/aa/big", "data/aa/none"])
    assert not storage.has("data/aa/three")


def test_wrong_credentials_and_no_store(s3: Seaweed) -> None:
    for more, words in (
        ({"SECRET_KEY": "wrong"}, "CVMFS_S3_SECRET_KEY"),
        ({"ACCESS_KEY": "nobody"}, "CVMFS_S3_ACCESS_KEY"),
        ({"PORT": "1", "MAX_RETRIES": "0"}, "refused; check that the S3 store is running"),
    ):
        storage = S3Storage(s3.configuration("credentials", **more), FQRN)
        with pytest.raises(StorageError, match=words):
            storage.put("data/aa/x", b"")
        with pytest.raises(StorageError):
            storage.get("data/aa/x", limit=1)


def test_two_publishers_at_once(site: S3Site) -> None:
    with Transaction(site.open()) as first:
        first.ingest(b"/first", [file("/f", b"1")])
        with pytest.raises(BusyError, match=f"process {os.getpid()} on "), Transaction(site.open()):
            pass
        first.publish()
    with Transaction(site.open()) as second:
        second.ingest(b"/second", [file("/f", b"2")])
        second.publish()
    assert site.findings() == []
    assert ".cvmfs_publishing" not in site.files()


def test_a_publisher_that_lost_its_lock_changes_nothing(site: S3Site) -> None:
    """It was suspended for so long that another one took over: nothing that it knows is true any more."""
    before = site.files()
    lock = S3Lock(site.bucket, f"{FQRN}/.cvmfs_publishing")

    def suspended() -> None:
        repository = site.open()
        with Transaction(repository) as transaction:
            transaction.ingest(b"/a", [file("/f", b"of the first")])
            with mock.patch.object(s3_lock, "_is_dead", return_value=True):
                lock.acquire(wait=30)  # a beat that comes between wins once
            # Whoever takes over early, as here, is noticed with the next beat; a late one by the clock.
            wait_until(lambda: repository.storage._held._lost, 30)  # type: ignore[attr-defined]
            transaction.publish()

    with mock.patch.object(s3_lock, "_BEAT", 0.1), pytest.raises(BusyError, match="lost the lock"):
        suspended()
    lock.check()
    lock.release()
    after = site.files()
    assert after[MANIFEST] == before[MANIFEST]
    assert set(before) <= set(after)  # what it had stored stays: the other one may count on it
    assert site.findings() == []


def test_a_publisher_that_is_killed_anywhere(site: S3Site) -> None:
    site.clock = time.time()
    site.open().resign()
    dice = random.Random(1)
    before = 1
    for number in range(KILLS):
        with endless_publisher(site.configuration, site.keys, (1 << 30) * (number % 2)) as process:
            time.sleep(dice.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it published until it was killed"
        now = site.open().manifest().revision
        assert now >= before
        assert site.findings() == []
        before = now
    with Transaction(site.open()) as transaction:  # at once: everybody here knows that he is dead
        transaction.ingest(b"/after", [file("/f")])
        transaction.publish()
    assert site.open().manifest().revision == before + 1
    assert site.findings() == []


def test_the_store_fails_amidst_a_publish(tmp_path: Path, s3: Seaweed) -> None:
    site = S3Site(Site(tmp_path), s3, MAX_RETRIES="1", TIMEOUT="3")
    site.clock = time.time()
    site.open().resign()
    with endless_publisher(site.configuration, site.keys, 0) as process:
        time.sleep(1)
        s3.kill()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"StorageError: cannot " in errors
    s3.start()
    before = site.open().manifest().revision
    assert site.findings() == []
    with Transaction(site.open()) as transaction:
        transaction.ingest(b"/after", [file("/f")])
        transaction.publish()
    assert site.open().manifest().revision == before + 1
    assert site.findings() == []
