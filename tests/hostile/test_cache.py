"""What a signed repository that is hostile can do to a cache that it shares with others."""

import os
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.cache.arrival import Arrival, Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.planes.erofs.links import Links
from cvmfs_graphdriver.planes.erofs.objectnames import StoredObject
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from cvmfs_graphdriver.repository.errors import FormatError

MEGABYTE = 1_000_000
CONTENT = b"content of an honest file" * 100
STORED = zlib.compress(CONTENT)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with closing(Cache(tmp_path / "cache", 10 * MEGABYTE)) as cache:
        yield cache


def arrive(cache: Cache, stored: bytes, size: int, compression: Compression = Compression.ZLIB) -> Wanted:
    """An object comes from a server, and is verified."""
    wanted = Wanted(ObjectName(Digest.of(stored)), size, compression=compression)
    arrival = Arrival(wanted, cache)
    try:
        arrival.begin()
        arrival.write(stored)
        arrival.finish()
        arrival.commit()
    except BaseException:
        arrival.abandon()
        raise
    return wanted


def content(cache: Cache, wanted: Wanted) -> bytes | None:
    descriptor = cache.open(wanted.name.digest, wanted.size, wanted.compression)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_an_object_listed_as_uncompressed_is_another_object(cache: Cache) -> None:
    raw = arrive(cache, STORED, len(STORED), Compression.NONE)
    honest = Wanted(raw.name, len(CONTENT))
    assert content(cache, honest) is None
    arrive(cache, STORED, len(CONTENT))
    assert content(cache, honest) == CONTENT
    assert content(cache, raw) == STORED


def test_stock_clients_find_every_object_of_an_alien_cache(tmp_path: Path) -> None:
    alien = Cache(tmp_path / "alien", alien=True)
    raw = arrive(alien, STORED, len(STORED), Compression.NONE)
    assert Path(alien.path(raw.name.digest)).read_bytes() == STORED


def test_a_wrong_size_throws_no_good_object_out(cache: Cache) -> None:
    honest = arrive(cache, STORED, len(CONTENT))
    for size in (0, 1, len(CONTENT) + 1, 2**60):
        with pytest.raises(FormatError, match=f"has {len(CONTENT)} bytes, not {size}"):
            cache.open(honest.name.digest, size)
    assert content(cache, honest) == CONTENT
    os.truncate(cache.path(honest.name.digest), 3)
    assert content(cache, honest) is None, "it is not what was stored"
    assert (cache.directory / "quarantaine" / honest.name.text).exists()


def test_without_a_ledger_a_wrong_size_removes_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "alien", alien=True)
    honest = arrive(cache, STORED, len(CONTENT))
    assert cache.open(honest.name.digest, 7) is None
    with pytest.raises(FormatError):
        arrive(cache, STORED, 7)
    assert content(cache, honest) == CONTENT


def test_a_file_listed_as_a_catalog_is_not_thrown_out(cache: Cache) -> None:
    honest = arrive(cache, STORED, len(CONTENT))
    cache.doubt(honest.name.digest)
    assert content(cache, honest) == CONTENT
    path = Path(cache.path(honest.name.digest))
    path.write_bytes(path.read_bytes()[::-1])
    cache.doubt(honest.name.digest)
    assert content(cache, honest) is None


def test_the_quarantine_counts_and_goes_first(cache: Cache) -> None:
    eviction = cache.eviction
    assert eviction is not None
    bad = arrive(cache, zlib.compress(b"b" * MEGABYTE), MEGABYTE)
    good = arrive(cache, STORED, len(CONTENT))
    cache.quarantine(bad.name.text)
    assert eviction.usage()[0] == MEGABYTE + len(CONTENT)
    eviction.shrink(MEGABYTE)
    assert not list((cache.directory / "quarantaine").iterdir())
    assert content(cache, good) == CONTENT


@pytest.mark.parametrize("size", [10 * MEGABYTE + 1, 5_000_000_000, 2**60])
def test_an_object_that_cannot_fit_is_refused_and_empties_nothing(size: int, cache: Cache) -> None:
    good = arrive(cache, STORED, len(CONTENT))
    with pytest.raises(CacheError, match=f"object {'a' * 40} has {size} bytes or more"):
        Arrival(Wanted(ObjectName(Digest.parse("a" * 40)), size), cache)
    assert content(cache, good) == CONTENT


def test_a_declared_size_evicts_nothing_before_a_byte_has_come(cache: Cache) -> None:
    good = arrive(cache, zlib.compress(b"g" * MEGABYTE), MEGABYTE)
    Arrival(Wanted(ObjectName(Digest.parse("a" * 40)), 10 * MEGABYTE), cache).abandon()
    assert content(cache, good) is not None


def test_an_object_of_unknown_size_stays_below_the_quota(cache: Cache) -> None:
    arrival = Arrival(Wanted(ObjectName(Digest.parse("a" * 40)), 2**40, exact=False), cache)
    arrival.begin()
    stored = zlib.compress(bytes(20 * MEGABYTE))
    with pytest.raises(CacheError, match="bytes or more"):
        arrival.write(stored)
    arrival.abandon()
    assert cache.eviction is not None
    assert cache.eviction._arriving == 0


def test_links_do_not_keep_evicted_objects_on_the_disk(cache: Cache) -> None:
    """Whoever evicts them, even if its server is gone; overlayfs has a moment to look a new link up."""
    links = Links(cache.directory, "a.org")
    eviction = cache.eviction
    assert eviction is not None
    for compression in Compression:
        wanted = arrive(
            cache, STORED, len(CONTENT if compression is Compression.ZLIB else STORED), compression
        )
        links.add(
            StoredObject(wanted.name.digest, wanted.size, compression),
            cache.path(wanted.name.digest, compression),
        )
    linked = [path for path in (cache.directory / "links").rglob("*") if path.is_file()]
    assert len(linked) == 4
    assert eviction.shrink(0) == len(CONTENT) + len(STORED), "they count as long as they are there"
    assert all(path.exists() for path in linked)
    for path in linked:
        os.utime(path, (time.time() - 5, 0))
    with closing(Cache(cache.directory, 10 * MEGABYTE)) as other:
        assert other.eviction is not None
        assert other.eviction.shrink(0) == 0
    assert not [path for path in cache.directory.glob("??/*") if path.is_file()]
    assert not [path for path in linked if path.exists()]
