"""Objects by name: one download however many ask, and nothing unverified in the cache."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.errors import NotFoundError
from cvmfs_graphdriver.client.network.network import Network
from cvmfs_graphdriver.client.objects import fetcher as fetcher_module
from cvmfs_graphdriver.client.objects.fetcher import Fetcher
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import DigestMismatchError, FormatError
from tests.support.fixtures import Server, serve

CONTENT = os.urandom(100_000) + b"x" * 500_000


class Bench:
    """A server with objects, and a fetcher with an empty cache."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.server = server
        self.cache = Cache(directory / "cache")
        self.counters = ClientCounters()
        values = {"CVMFS_SERVER_URL": server.url, "CVMFS_HTTP_PROXY": "DIRECT", "CVMFS_PUBLIC_KEY": "/k"}
        self.network = Network(load_settings("a.b", directory, values).network, self.counters, "")
        self.fetcher = Fetcher(self.network.transfer, self.cache, self.counters)

    def put(
        self, data: bytes, algorithm: Algorithm = Algorithm.SHA1, suffix: Suffix = Suffix.NONE
    ) -> ObjectName:
        """Serve ``data`` as an object."""
        name = ObjectName(Digest.of(data, algorithm), suffix)
        path = self.server.root / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name

    def read(self, wanted: Wanted) -> bytes:
        """Content of an object."""
        with os.fdopen(self.fetcher.open(wanted), "rb") as file:
            return file.read()


@contextmanager
def _bench(directory: Path) -> Iterator[Bench]:
    (directory / "served").mkdir()
    with serve(directory / "served") as server:
        bench = Bench(directory, server)
        with closing(bench.network):
            yield bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
@pytest.mark.parametrize("compression", list(Compression))
def test_every_algorithm(algorithm: Algorithm, compression: Compression, bench: Bench) -> None:
    data = compress(CONTENT, compression)
    name = bench.put(data, algorithm, Suffix.PARTIAL)
    assert bench.read(Wanted(name, len(CONTENT), compression=compression)) == CONTENT
    assert Path(bench.cache.path(name.digest, compression)).read_bytes() == CONTENT
    assert bench.read(Wanted(name, len(CONTENT), compression=compression)) == CONTENT
    assert sum(bench.server.requests.values()) == 1
    assert (bench.counters[Count.HITS], bench.counters[Count.MISSES]) == (1, 1)


def test_one_download_however_many_ask(bench: Bench) -> None:
    name = bench.put(compress(CONTENT))
    everyone = threading.Barrier(20)

    def slow(_: BaseHTTPRequestHandler) -> bool:
        time.sleep(0.1)
        return False

    def ask(_: int) -> bytes:
        everyone.wait()
        return bench.read(Wanted(name, len(CONTENT)))

    bench.server.faults["*"] = slow
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(ask, range(20))) == {CONTENT}
    assert sum(bench.server.requests.values()) == 1


def test_all_who_wait_see_the_error_and_the_next_one_tries_again(bench: Bench) -> None:
    name = bench.put(compress(CONTENT))
    path = bench.server.root / name.path
    path.rename(path.with_suffix(".away"))
    everyone = threading.Barrier(8)

    def slow(_: BaseHTTPRequestHandler) -> bool:
        time.sleep(0.1)
        return False

    def ask(_: int) -> type[BaseException] | None:
        everyone.wait()
        try:
            bench.read(Wanted(name, len(CONTENT)))
        except NotFoundError as error:
            return type(error)
        return None

    bench.server.faults["*"] = slow
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {NotFoundError}
    assert sum(bench.server.requests.values()) == 1
    path.with_suffix(".away").rename(path)
    assert bench.read(Wanted(name, len(CONTENT))) == CONTENT


@pytest.mark.parametrize(
    ("stored", "size", "error"),
    [
        (compress(CONTENT)[:-1], len(CONTENT), FormatError),
        (compress(CONTENT) + b"more", len(CONTENT), FormatError),
        (compress(CONTENT), len(CONTENT) - 1, FormatError),
        (compress(CONTENT), len(CONTENT) + 1, FormatError),
        (compress(b"\0" * 50_000_000), 1000, FormatError),
        (b"no zlib", 7, FormatError),
        (b"", 0, FormatError),
    ],
)
def test_bytes_with_the_right_digest_that_are_wrong_all_the_same(
    stored: bytes, size: int, error: type[Exception], bench: Bench
) -> None:
    name = bench.put(stored)
    with pytest.raises(error, match=f"the thing {name}"):
        bench.read(Wanted(name, size, label="the thing"))
    assert not Path(bench.cache.path(name.digest)).exists()


def test_upper_limits(bench: Bench) -> None:
    name = bench.put(compress(CONTENT))
    assert bench.read(Wanted(name, len(CONTENT) * 2, exact=False)) == CONTENT
    os.unlink(bench.cache.path(name.digest))
    with pytest.raises(FormatError):
        bench.read(Wanted(name, len(CONTENT) - 1, exact=False))


def test_files_that_shrank_in_the_cache_are_fetched_anew(bench: Bench) -> None:
    name = bench.put(compress(CONTENT))
    wanted = Wanted(name, len(CONTENT))
    bench.fetcher.fetch(wanted)
    os.truncate(bench.cache.path(name.digest), 1000)
    assert bench.read(wanted) == CONTENT


def test_other_places(bench: Bench) -> None:
    name = bench.put(compress(CONTENT))
    (bench.server.root / name.path).rename(bench.server.root / "elsewhere")
    assert bench.read(Wanted(name, len(CONTENT), path="elsewhere")) == CONTENT
    part = CONTENT[100:200]
    inner = ObjectName(Digest.of(part))
    (bench.server.root / "whole").write_bytes(CONTENT)
    wanted = Wanted(inner, 100, compression=Compression.NONE, path="whole", span=(100, 200))
    assert bench.read(wanted) == part
    with pytest.raises(DigestMismatchError):
        bench.read(
            Wanted(
                ObjectName(Digest.of(b"y")), 100, compression=Compression.NONE, path="whole", span=(0, 100)
            )
        )


def test_a_reader_does_not_wait_for_a_claim_that_nobody_begins_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "_PATIENCE", 0.2)
    wanted = Wanted(bench.put(compress(CONTENT)), len(CONTENT))
    claim = bench.fetcher.claim(wanted, lambda _: None)
    assert claim is not None
    assert bench.read(wanted) == CONTENT
    claim.fetch(lambda arrival: bench.network.transfer.fetch(wanted.location, arrival))
    assert bench.read(wanted) == CONTENT
    assert sum(bench.server.requests.values()) == 2


def test_a_reader_waits_as_long_as_it_takes_for_one_that_has_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "_PATIENCE", 0.1)
    wanted = Wanted(bench.put(compress(CONTENT)), len(CONTENT))

    def slow(_: BaseHTTPRequestHandler) -> bool:
        time.sleep(1)
        return False

    bench.server.faults["*"] = slow
    with ThreadPoolExecutor(4) as readers:
        assert set(readers.map(lambda _: bench.read(wanted), range(4))) == {CONTENT}
    assert sum(bench.server.requests.values()) == 1
