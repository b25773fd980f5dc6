"""Content on its way to objects: the same objects with and without workers, cut where the format says."""

import io
import os
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.ingest import objects
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter, PendingContent, StoredContent
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.repository.chunking import ChunkDetector, ChunkSizes
from cvmfs_graphdriver.repository.compression import decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix

SIZES = ChunkSizes(32_768, 65_537, 131_072)
OPTIONS = RepositoryOptions(chunking=SIZES)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.create(tmp_path / "storage")


@pytest.fixture(params=["inline", "workers"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether worker processes are used from the first byte on."""
    if request.param == "workers":
        monkeypatch.setattr(objects, "_WORTH_WORKERS", 0)
    return bool(request.param == "workers")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def read(storage: LocalStorage, content: StoredContent) -> bytes:
    names = [ObjectName(chunk.digest, Suffix.PARTIAL) for chunk in content.chunks]
    if content.digest is not None:
        names.append(ObjectName(content.digest, Suffix.NONE))
    pieces = [storage.get(name.path, limit=1 << 30) for name in names]
    return b"".join(decompress(piece) for piece in pieces if piece is not None)


class Dripping(io.BytesIO):
    """Never gives as much as is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


@pytest.mark.parametrize("size", [0, 1, 32_768, 32_769, 131_072, 600_000])
@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
def test_content_comes_back_cut_by_the_detector(
    storage: LocalStorage, size: int, source: type[io.BytesIO], workers: bool
) -> None:
    data = noise(size)
    with ObjectWriter(storage, OPTIONS) as writer:
        content = writer.store(source(data)).result()
    assert content.size == size
    assert read(storage, content) == data
    cuts = list(ChunkDetector(SIZES).feed(data))
    assert [chunk.offset for chunk in content.chunks] == ([0, *cuts] if cuts else [])
    assert (content.digest is None) == bool(cuts)


def test_many_files_are_batched_and_counted(storage: LocalStorage, workers: bool) -> None:
    with ObjectWriter(storage, OPTIONS) as writer:
        pending = [writer.store(io.BytesIO(b"%d" % (number % 1500))) for number in range(2000)]
        results = [content.result() for content in pending]
    assert all(read(storage, one) == b"%d" % (number % 1500) for number, one in enumerate(results))
    assert writer.objects_new + writer.objects_known == 2000
    assert writer.objects_new >= 1500  # two workers may bring the same one at the same time
    files = list(storage.directory.glob("data/??/*"))
    assert len(files) == 1500
    if not workers:
        assert writer.objects_new == 1500
        assert writer.bytes_new == sum(path.stat().st_size for path in files)


def test_several_sources_at_once(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_WORTH_WORKERS", 0)
    monkeypatch.setattr(objects, "_UNDER_WAY", 200_000)
    results: dict[int, StoredContent] = {}
    with ObjectWriter(storage, OPTIONS) as writer:

        def run(seed: int) -> None:
            contents = [writer.store(io.BytesIO(noise(40_000, seed * 100 + i))) for i in range(20)]
            results.update({seed * 100 + i: content.result() for i, content in enumerate(contents)})

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 80
    assert all(read(storage, content) == noise(40_000, seed) for seed, content in results.items())


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_without_chunking_a_file_is_one_object(
    storage: LocalStorage, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_IN_MEMORY", 50_000)
    data = noise(size // 2) * 2
    with ObjectWriter(storage, replace(OPTIONS, chunking=None)) as writer:
        content = writer.store(Dripping(data)).result()
    assert content.chunks == ()
    assert content.digest is not None
    assert read(storage, content) == data
    stored = storage.get(ObjectName(content.digest, Suffix.NONE).path, limit=1 << 30)
    assert stored is not None
    assert Digest.of(stored) == content.digest
    with ObjectWriter(storage, replace(OPTIONS, chunking=None)) as writer:
        assert writer.store(io.BytesIO(data)).result() == content
        assert writer.objects_new == 0


def test_what_is_discarded_is_gone_and_nothing_else(storage: LocalStorage, workers: bool) -> None:
    with ObjectWriter(storage, OPTIONS) as writer:
        kept = writer.store(io.BytesIO(b"kept")).result()
    with ObjectWriter(storage, OPTIONS) as writer:
        writer.store(io.BytesIO(b"kept")).result()
        writer.store(io.BytesIO(noise(100_000))).result()
        writer.put(b"a catalog", Suffix.CATALOG)
    assert len(list(storage.directory.glob("data/??/*"))) >= 5
    writer.discard()
    (left,) = storage.directory.glob("data/??/*")
    assert kept.digest is not None
    assert left == storage.directory / ObjectName(kept.digest, Suffix.NONE).path


@pytest.mark.parametrize(("length", "chunked"), [(0, True), (5, False)])
def test_what_a_crash_cut_short_is_written_anew(
    storage: LocalStorage, length: int, workers: bool, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_IN_MEMORY", 50_000)
    options = OPTIONS if chunked else replace(OPTIONS, chunking=None)
    data = noise(300_000)
    with ObjectWriter(storage, options) as writer:
        before = writer.store(io.BytesIO(data)).result()
        writer.put(b"a catalog", Suffix.CATALOG)
    whole = {path: path.read_bytes() for path in storage.directory.glob("data/??/*")}
    for path in whole:
        os.truncate(path, length)
    with ObjectWriter(storage, options) as writer:
        assert writer.store(io.BytesIO(data)).result() == before
        writer.put(b"a catalog", Suffix.CATALOG)
        assert writer.objects_new == 0
    writer.discard()  # an older revision may need them
    assert {path: path.read_bytes() for path in storage.directory.glob("data/??/*")} == whole


def test_a_storage_that_fails_is_told_to_whoever_waits(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_WORTH_WORKERS", 0)
    (storage.directory / "data/txn").rename(storage.directory / "data/away")
    with ObjectWriter(storage, OPTIONS) as writer:
        pending = [writer.store(io.BytesIO(noise(2_000, number))) for number in range(50)]
        for content in pending:
            with pytest.raises(StorageError, match="no such directory"):
                content.result()


def test_giving_up_does_not_wait_for_what_is_under_way(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_WORTH_WORKERS", 0)
    pending: list[PendingContent] = []

    def fail() -> None:
        with ObjectWriter(storage, OPTIONS) as writer:
            pending.extend(writer.store(io.BytesIO(noise(16_000, number))) for number in range(500))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store-")]
    assert len(list(storage.directory.glob("data/??/*"))) < 500
    with pytest.raises(StorageError, match="aborted"):
        pending[-1].result()


def test_the_disk_begins_before_the_end_and_may_fail_then(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_EARLY_FLUSH", 100_000)
    flushed = threading.Event()

    def flush(_: LocalStorage) -> None:
        flushed.set()
        raise StorageError("the disk is full")

    monkeypatch.setattr(LocalStorage, "flush", flush)
    with ObjectWriter(storage, OPTIONS) as writer:
        first = writer.store(io.BytesIO(noise(90_000)))
        assert not flushed.is_set()
        second = writer.store(io.BytesIO(noise(90_000, seed=2)))
        assert flushed.wait(10)
        assert read(storage, first.result()) + read(storage, second.result()) == noise(90_000) + noise(
            90_000, seed=2
        )
    assert "flush" not in [thread.name for thread in threading.enumerate()]
