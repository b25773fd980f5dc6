"""The cache directory: whole files or none, eviction, crashes, a full disk."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.cache.eviction import Eviction
from cvmfs_graphdriver.client.cache.ledger import Kind, Ledger, Record
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.repository.digest import Digest
from demo.disks import loop_disk
from tests.client.storing import store

MEGABYTE = 1024 * 1024


def _put(cache: Cache, data: bytes, **options: object) -> Digest:
    digest = Digest.of(data)
    with store(cache, digest, **options) as incoming:
        incoming.write(data)
    return digest


def _get(cache: Cache, digest: Digest, size: int | None = None) -> bytes | None:
    descriptor = cache.open(digest, size)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _files(directory: Path) -> set[str]:
    return {path.parent.name + path.name for path in directory.glob("[0-9a-f][0-9a-f]/*")}


@contextmanager
def _with_limit(directory: Path, limit: int) -> Iterator[tuple[Cache, Eviction]]:
    with closing(Cache(directory, limit)) as cache:
        assert cache.eviction is not None
        yield cache, cache.eviction


def test_an_object_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    digest = Digest.of(b"abc")
    assert cache.open(digest) is None
    with store(cache, digest) as incoming:
        incoming.write(b"wrong")
        incoming.restart()
        incoming.write(b"ab")
        assert cache.open(digest) is None
        incoming.write(b"c")
        early = incoming.reopen()
    os.close(early)
    assert _get(cache, digest) == b"abc"
    assert (tmp_path / digest.text[:2] / digest.text[2:]).stat().st_mode & 0o777 == 0o600
    with suppress(ZeroDivisionError), store(cache, Digest.of(b"x")) as incoming:
        incoming.write(b"x" * (1 // 0))
    assert _files(tmp_path) == {digest.text}
    assert not list((tmp_path / "txn").iterdir())


def test_a_file_of_the_wrong_size_goes_to_the_quarantine(tmp_path: Path) -> None:
    with _with_limit(tmp_path, MEGABYTE) as (cache, eviction):
        digest = _put(cache, b"content")
        os.truncate(cache.path(digest), 3)
        assert _get(cache, digest, 7) is None
        assert (tmp_path / "quarantaine" / digest.text).read_bytes() == b"con"
        assert [record.digest for record in eviction.records()] == [f"quarantaine/{digest}"]
        cache.quarantine(digest.text)


def test_directories_that_disappear_are_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    digest = Digest.of(b"abc")
    for _ in range(2):
        with suppress(OSError):
            (tmp_path / "txn").rmdir()
        _put(cache, b"abc")
        assert _get(cache, digest) == b"abc"
        os.unlink(cache.path(digest))
        (tmp_path / digest.text[:2]).rmdir()


def test_an_alien_cache_is_for_the_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = Cache(tmp_path / "alien", alien=True)
        digest = _put(cache, b"abc")
    finally:
        os.umask(before)
    path = Path(cache.path(digest))
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.parent.stat().st_mode & 0o777 == 0o770
    assert not (tmp_path / "alien" / "cachedb").exists()


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="Not a directory"):
        Cache(tmp_path / "file" / "x")
    cache = Cache(tmp_path / "cache")
    digest = Digest.of(b"abc")
    (tmp_path / "cache" / digest.text[:2]).touch()
    with pytest.raises(CacheError, match=f"cannot store {digest}"):
        _put(cache, b"abc")
    with pytest.raises(CacheError, match="cannot open"):
        cache.open(digest)


# Eviction


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: Path) -> None:
    with _with_limit(tmp_path, 10 * MEGABYTE) as (cache, eviction):
        digests = [_put(cache, bytes([number]) * 900_000) for number in range(11)]
        assert _get(cache, digests[0]) is not None
        assert _get(cache, digests[2]) is not None
        left = eviction.shrink(5 * MEGABYTE)
        assert left <= 5 * MEGABYTE
        assert _files(tmp_path) == {digests[n].text for n in (0, 2, 8, 9, 10)}
        assert eviction.usage() == (5 * 900_000, 0)
        assert eviction.evictions_since(time.monotonic() - 60) == 1
        assert eviction.evictions_since(time.monotonic() + 1) == 0


def test_the_janitor_keeps_the_limit_by_itself(tmp_path: Path) -> None:
    with _with_limit(tmp_path, 2 * MEGABYTE) as (cache, eviction):
        digests = [_put(cache, bytes([number]) * 300_000) for number in range(9)]
        for _ in range(200):
            if eviction.evictions_since(0) and eviction.used <= eviction.limit:
                break
            time.sleep(0.02)
        assert eviction.used <= eviction.limit
        there = _files(tmp_path)
        assert there == {digest.text for digest in digests[9 - len(there) :]}
        assert len(there) < len(digests)


def test_volatile_objects_go_before_all_others(tmp_path: Path) -> None:
    with _with_limit(tmp_path, 10 * MEGABYTE) as (cache, eviction):
        old = _put(cache, b"o" * MEGABYTE)
        volatile = _put(cache, b"v" * MEGABYTE, volatile=True)
        assert _get(cache, volatile) is not None
        eviction.shrink(MEGABYTE)
        assert _files(tmp_path) == {old.text}


def test_held_and_pinned_objects_stay(tmp_path: Path) -> None:
    pressure: list[int] = []
    with _with_limit(tmp_path, 4 * MEGABYTE) as (cache, eviction):
        eviction.on_pressure.append(lambda: pressure.append(1))
        held = _put(cache, b"h" * MEGABYTE, kind=Kind.CATALOG, path="a catalog")
        pinned = _put(cache, b"p" * MEGABYTE)
        other = _put(cache, b"o" * MEGABYTE)
        assert eviction.pin(pinned.text)
        assert not eviction.pin("absent")
        descriptor = cache.hold(held)
        assert descriptor is not None
        eviction.limit = 2 * MEGABYTE
        eviction.shrink(0)
        assert _files(tmp_path) == {held.text, pinned.text}
        assert eviction.usage() == (2 * MEGABYTE, MEGABYTE)
        assert pressure
        assert not eviction.evict(held.text)
        assert eviction.evict(pinned.text)
        os.close(descriptor)
        eviction.shrink(0)
        assert _files(tmp_path) == set()
        assert cache.hold(other) is None


def test_big_objects_get_room_as_they_arrive(tmp_path: Path) -> None:
    with _with_limit(tmp_path, 40 * MEGABYTE) as (cache, eviction):
        for number in range(3):
            _put(cache, bytes([number]) * 9 * MEGABYTE)
        eviction.flush()
        with store(cache, Digest.of(b"big"), size=26 * MEGABYTE) as incoming:
            assert eviction.used == 27 * MEGABYTE
            for arrived in range(26):
                incoming.write(b"b" * MEGABYTE)
                assert eviction.used + arrived * MEGABYTE <= eviction.limit + MEGABYTE
            assert eviction.used == 9 * MEGABYTE


def test_what_is_open_can_be_read_after_it_was_evicted(tmp_path: Path) -> None:
    with _with_limit(tmp_path, MEGABYTE) as (cache, eviction):
        digest = _put(cache, b"content")
        descriptor = cache.open(digest)
        assert descriptor is not None
        assert eviction.evict(digest.text)
        with os.fdopen(descriptor, "rb") as file:
            assert file.read() == b"content"


def test_ledger_knows_what_each_object_is(tmp_path: Path) -> None:
    with _with_limit(tmp_path, MEGABYTE) as (cache, eviction):
        one = _put(cache, b"content", path="file /a, object")
        two = _put(cache, b"x" * 5, path="catalog of /", kind=Kind.CATALOG)
        records = eviction.records()
        assert [(r.digest, r.size, r.path, r.kind) for r in records] == [
            (one.text, 7, "file /a, object", Kind.REGULAR),
            (two.text, 5, "catalog of /", Kind.CATALOG),
        ]
        import zlib

        assert records[0].crc32 == zlib.crc32(b"content")


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.repository.digest import Digest
from tests.client.storing import store
cache = Cache(Path(sys.argv[1]), 10_000_000)
for number in range(200):
    data = str(number % 150).encode() * 100
    with store(cache, Digest.of(data)) as incoming:
        incoming.write(data)
    cache.open(Digest.of(data))
cache.close()
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    with _with_limit(tmp_path, 10_000_000) as (_, eviction):
        assert {record.digest for record in eviction.records()} == _files(tmp_path)
        assert len(_files(tmp_path)) == 150
        assert not list(tmp_path.glob("txn/*"))


# Crashes


def _crash(directory: Path, program: str) -> None:
    """Run a program that is killed in the middle."""
    head = f"""
import os, signal
from pathlib import Path
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.repository.digest import Digest
from tests.client.storing import store
cache = Cache(Path({str(directory)!r}), 10_000_000)
def put(data, die=False):
    with store(cache, Digest.of(data)) as incoming:
        incoming.write(data)
        if die: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", head + program], check=False).returncode == -9


def test_after_a_crash_the_ledger_is_made_to_agree(tmp_path: Path) -> None:
    _crash(tmp_path, "put(b'first'); cache.eviction.flush(); put(b'second'); put(b'third', die=True)")
    first, second = Digest.of(b"first"), Digest.of(b"second")
    assert _files(tmp_path) == {first.text, second.text}
    with _with_limit(tmp_path, MEGABYTE) as (_, eviction):
        for _ in range(100):
            if len(eviction.records()) == 2:
                break
            time.sleep(0.02)
        assert {record.digest for record in eviction.records()} == {first.text, second.text}
        assert eviction.usage() == (11, 0)
        os.unlink(tmp_path / first.text[:2] / first.text[2:])
    _crash(tmp_path, "put(b'fourth', die=True)")
    with _with_limit(tmp_path, MEGABYTE) as (_, eviction):
        for _ in range(100):
            if len(eviction.records()) == 1:
                break
            time.sleep(0.02)
        assert {record.digest for record in eviction.records()} == {second.text}
    assert not list(tmp_path.glob("janitor.*"))


def test_what_a_crash_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    _crash(tmp_path, "put(b'half', die=True)")
    assert len(list(tmp_path.glob("txn/*"))) == 1
    with _with_limit(tmp_path, MEGABYTE) as (cache, _), store(cache, Digest.of(b"mine")) as incoming:
        incoming.write(b"mine")
        for _ in range(100):
            if len(list(tmp_path.glob("txn/*"))) == 1:
                break
            time.sleep(0.02)
        assert [path.name.partition(".")[0] for path in tmp_path.glob("txn/*")] == [Digest.of(b"mine").text]


def test_damaged_ledgers_are_begun_anew(tmp_path: Path) -> None:
    with _with_limit(tmp_path, MEGABYTE) as (cache, _):
        digest = _put(cache, b"content")
    for damage in (b"", b"no database" * 1000, (tmp_path / "cachedb").read_bytes()[:4096]):
        (tmp_path / "cachedb").write_bytes(damage)
        with _with_limit(tmp_path, MEGABYTE) as (cache, eviction):
            for _ in range(100):
                with suppress(CacheError):
                    if eviction.records():
                        break
                time.sleep(0.02)
            assert [record.digest for record in eviction.records()] == [digest.text]
            assert _get(cache, digest) == b"content"


def test_ledger_numbers_never_clash(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "cachedb")) as ledger:
        ledger.add(Record(f"{number:040x}", 1, 7) for number in range(5))
        ledger.touch([("0" * 40, 7), ("f" * 40, 9)])
        assert [record.sequence for record in ledger.records()] == [8, 9, 10, 11, 12]
        ledger.remove([f"{number:040x}" for number in range(4)])
        assert ledger.used() == (1, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with loop_disk(tmp_path / "disk", 8 * MEGABYTE) as disk:
        yield disk


@pytest.mark.root
def test_a_disk_that_is_full_before_the_quota_is(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _with_limit(small_disk / "cache", 100 * MEGABYTE) as (cache, eviction):
        digests = [_put(cache, os.urandom(400_000)) for _ in range(40)]
        assert eviction.evictions_since(0) >= 1
        there = _files(small_disk / "cache")
        assert digests[-1].text in there
        assert 1 < len(there) < 20
    # Somebody else has filled it: an error, nothing half-written, and all is well when there is room again.
    with _with_limit(small_disk / "cache", 100 * MEGABYTE) as (cache, eviction):
        eviction.shrink(0)
        with (small_disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        told: list[int] = []
        cache.on_full.append(lambda: told.append(1))
        assert not cache.is_full
        for _ in range(2):
            with pytest.raises(CacheError, match="No space left"):
                _put(cache, os.urandom(400_000))
        assert cache.is_full
        assert len(told) == 2
        assert [record.message for record in caplog.records if "is full" in record.message] == [
            f"the disk of the cache {small_disk / 'cache'} is full, and not with cached objects"
        ]
        assert not list((small_disk / "cache" / "txn").iterdir())
        (small_disk / "ballast").unlink()
        assert _get(cache, _put(cache, b"content")) == b"content"
