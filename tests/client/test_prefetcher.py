"""Many objects ahead of their readers: each fetched once, verified, and told of when it is there."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.errors import NotFoundError
from cvmfs_graphdriver.client.fetcher import Wanted
from cvmfs_graphdriver.client.prefetcher import Prefetcher
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from tests.client.test_fetcher import Bench, _bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path) as bench:
        yield bench


def _wanted(bench: Bench, content: bytes) -> Wanted:
    return Wanted(bench.put(compress(content)), len(content))


def _wait(condition: threading.Event) -> None:
    assert condition.wait(20)


def test_all_come_once_and_are_told_of(bench: Bench) -> None:
    contents = [os.urandom(100 + 37 * number) for number in range(300)] + [os.urandom(3 << 20)]
    all_wanted = [_wanted(bench, content) for content in contents]
    arrived: dict[bytes, bytes] = {}
    complete = threading.Event()

    def arrive(wanted: Wanted, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as file:
            arrived[wanted.name.digest.raw] = file.read()
        if len(arrived) == len(contents):
            complete.set()

    with closing(Prefetcher(bench.fetcher, bench.network.transfer)) as prefetcher:
        for wanted in [*all_wanted, *all_wanted]:
            prefetcher.submit(wanted, lambda descriptor, wanted=wanted: arrive(wanted, descriptor))  # type: ignore[misc]
        _wait(complete)
    assert [arrived[wanted.name.digest.raw] for wanted in all_wanted] == contents
    assert set(bench.server.requests.values()) == {1}
    assert not list((bench.cache.directory / "txn").iterdir())


def test_a_reader_waits_for_what_is_under_way(bench: Bench) -> None:
    wanted = _wanted(bench, b"content")
    begun = threading.Event()

    def slow(_: BaseHTTPRequestHandler) -> bool:
        begun.set()
        time.sleep(0.3)
        return False

    bench.server.faults["*"] = slow
    with closing(Prefetcher(bench.fetcher, bench.network.transfer)) as prefetcher:
        prefetcher.submit(wanted)
        _wait(begun)
        assert bench.read(wanted) == b"content"
    assert sum(bench.server.requests.values()) == 1


def test_wrong_bytes_are_asked_for_again_and_never_shown(bench: Bench) -> None:
    wanted = _wanted(bench, b"content")
    good = (bench.server.root / wanted.name.path).read_bytes()
    (bench.server.root / wanted.name.path).write_bytes(bytes(len(good)))
    asked: list[str] = []

    def heal(_: BaseHTTPRequestHandler) -> bool:
        asked.append("")
        if len(asked) == 2:
            (bench.server.root / wanted.name.path).write_bytes(good)
        return False

    bench.server.faults["*"] = heal
    arrived = threading.Event()

    def arrive(descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as file:
            assert file.read() == b"content"
        arrived.set()

    with closing(Prefetcher(bench.fetcher, bench.network.transfer)) as prefetcher:
        prefetcher.submit(wanted, arrive)
        _wait(arrived)
    assert len(asked) == 2


def test_what_is_not_there_is_an_error_for_readers_only(bench: Bench) -> None:
    missing = Wanted(ObjectName(Digest.of(b"nothing")), 7)
    good = _wanted(bench, b"content")
    arrived = threading.Event()

    def arrive(descriptor: int) -> None:
        os.close(descriptor)
        arrived.set()

    with closing(Prefetcher(bench.fetcher, bench.network.transfer)) as prefetcher:
        prefetcher.submit(missing)
        prefetcher.submit(good, arrive)
        _wait(arrived)
        with pytest.raises(NotFoundError):
            bench.read(missing)


def test_closing_does_not_wait_for_a_queue(bench: Bench) -> None:

    def slow(_: BaseHTTPRequestHandler) -> bool:
        time.sleep(0.05)
        return False

    bench.server.faults["*"] = slow
    prefetcher = Prefetcher(bench.fetcher, bench.network.transfer)
    for number in range(500):
        prefetcher.submit(_wanted(bench, b"%d" % number))
    start = time.monotonic()
    prefetcher.close()
    assert time.monotonic() - start < 2
    assert not list((bench.cache.directory / "txn").iterdir())
