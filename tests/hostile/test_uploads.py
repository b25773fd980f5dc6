"""Uploads to the publisher that cost much more than they weigh."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.uploads import LayerUploads, UploadLimits
from cvmfs_graphdriver.publisher.care.gc import Collection, collect_garbage
from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.bucket import BucketObject
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from tests.support.storage_site import Site
from tests.support.tars import tar_of

MIB = 1 << 20
LIMITS = UploadLimits(size=MIB, unpacked=2 * MIB, entries=100, seconds=30)


class MemoryBucket:
    def __init__(self, *uploads: bytes) -> None:
        self.content = {hashlib.sha256(data).hexdigest(): data for data in uploads}

    def objects(self, prefix: str) -> Iterator[BucketObject]:
        assert not prefix
        return (BucketObject(name, len(data), name) for name, data in self.content.items())

    def open(self, key: str) -> io.BytesIO:
        return io.BytesIO(self.content[key])

    def etag(self, key: str) -> str | None:
        return key if key in self.content else None

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self.content[key]


def _repository(place: Path) -> Repository:
    return create_repository("uploads.example.org", LocalStorage.create(place / "storage"), place / "keys")


def _sparse(size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo("holes")
    info.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"{size},0"}
    return info


PART = {"precious": os.urandom(3000)}
HOSTILE = {
    "holes": (tar_of(PART, _sparse(4 << 30)), "unpacks to more than 2097152 bytes"),
    "zeros": (tar_of(PART, ("zeros", bytes(3 * MIB))), "unpacks to more than 2097152 bytes"),
    "many small files": (
        tar_of(PART, {str(number): bytes(30_000) for number in range(90)}),
        "unpacks to more than 2097152 bytes",
    ),
    "bytes after the end": (tar_of(PART) + bytes(3 * MIB), "unpacks to more than 2097152 bytes"),
    "entries": (tar_of(PART, {str(number): None for number in range(100)}), "has more than 100 entries"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_costly_upload_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    tar, words = HOSTILE[kind]
    bad, good = gzip.compress(tar), tar_of({"file": b"content"})
    assert len(bad) < 20_000
    counts = []
    for number, uploads in enumerate(((good,), (bad, good))):
        repository = _repository(tmp_path / str(number))
        before = len(list(repository.storage.objects()))
        bucket = MemoryBucket(*uploads)
        layers = LayerUploads(bucket, repository, LIMITS)  # type: ignore[arg-type]
        assert layers.publish() == 1
        assert bucket.content == {}
        assert layers.status(hashlib.sha256(good).hexdigest()) == "done"
        counts.append(len(list(repository.storage.objects())) - before)
    status = layers.status(hashlib.sha256(bad).hexdigest())
    assert status.startswith("failed: ")
    assert words in status
    assert counts[0] == counts[1]


def test_unpacking_takes_no_longer_than_allowed(tmp_path: Path) -> None:
    bad = gzip.compress(tar_of(_sparse(1 << 40)))
    layers = LayerUploads(
        MemoryBucket(bad),  # type: ignore[arg-type]
        _repository(tmp_path),
        UploadLimits(unpacked=1 << 50, seconds=0.5),
    )
    assert layers.publish() == 0
    assert "takes more than 0.5 seconds" in layers.status(hashlib.sha256(bad).hexdigest())
    assert list((tmp_path / "storage/data/txn").iterdir()) == [tmp_path / "storage/data/txn/.lock"]


class BusyBucket(MemoryBucket):
    """Something is done with the repository whenever an upload is read."""

    def __init__(self, action: Callable[[], object], *uploads: bytes) -> None:
        super().__init__(*uploads)
        self.action = action

    def open(self, key: str) -> io.BytesIO:
        bucket = self

        class Reader(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                bucket.action()
                return super().read(size)

        return Reader(self.content[key])


def test_the_repository_is_not_locked_while_an_upload_is_unpacked(tmp_path: Path) -> None:
    """Others publish and collect garbage meanwhile, and nothing of the upload gets lost."""
    site = Site(tmp_path)
    collected: list[Collection] = []

    def work() -> None:
        site.publish({b"/others/%d" % len(collected): ()})
        site.clock += 1000
        collected.append(collect_garbage(site.open(), tmp_path / "index", since=site.clock))

    uploads = [tar_of({"file": name.encode() * 1000}) for name in ("first", "second", "third")]
    bucket = BusyBucket(work, *uploads)
    assert LayerUploads(bucket, site.open(), UploadLimits()).publish() == 3  # type: ignore[arg-type]
    assert len(collected) >= 6
    assert site.findings() == []
    for tar in uploads:
        layer = site.tree(b"/layers/" + hashlib.sha256(tar).hexdigest().encode())
        assert len(layer[b"/file"][1]) in {5000, 6000}


def test_what_a_killed_publisher_had_spooled_is_removed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    scratch = site.storage / "data/txn"
    code = (
        "import os, pathlib, sys\n"
        "from cvmfs_graphdriver.publisher.storage.local import LocalStorage\n"
        "with LocalStorage(pathlib.Path(sys.argv[1])).spool() as spool:\n"
        "    spool.put('data/00/' + '0' * 38, b'content')\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, site.storage], check=True)
    (left,) = scratch.glob("spool-*")
    with site.at().spool() as alive:
        site.publish({})
        assert list(scratch.glob("spool-*")) == [alive.directory]
        assert not left.exists()
    assert list(scratch.glob("spool-*")) == []


def test_what_is_within_the_limits_is_published(tmp_path: Path) -> None:
    good = gzip.compress(tar_of({"file": bytes(2 * MIB - 100_000)}, {str(n): None for n in range(99)}))
    layers = LayerUploads(MemoryBucket(good), _repository(tmp_path), LIMITS)  # type: ignore[arg-type]
    assert layers.publish() == 1
