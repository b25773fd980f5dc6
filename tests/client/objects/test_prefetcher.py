"""Many objects ahead of their readers: each fetched once, verified, and told of when it is there."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.counters import Count
from cvmfs_graphdriver.client.errors import NotFoundError
from cvmfs_graphdriver.client.network.network import Network
from cvmfs_graphdriver.client.objects import prefetcher as prefetcher_module
from cvmfs_graphdriver.client.objects.fetcher import Fetcher
from cvmfs_graphdriver.client.objects.prefetcher import Prefetcher, Task
from cvmfs_graphdriver.repository.compression import compress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName
from tests.client.objects.test_fetcher import Bench, _bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path) as bench:
        yield bench


def _prefetcher(bench: Bench) -> Prefetcher:
    return Prefetcher(bench.fetcher, bench.network.transfer, bench.cache.directory)


def _wanted(bench: Bench, content: bytes) -> Wanted:
    return Wanted(bench.put(compress(content)), len(content))


def _ignore(_: str) -> None:
    pass


def _wait(condition: threading.Event) -> None:
    assert condition.wait(20)


class Arrivals:
    """Collects what has come, and says when all has."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.contents: dict[str, bytes] = {}
        self.complete = threading.Event()

    def arrive(self, path: str) -> None:
        self.contents[path] = Path(path).read_bytes()
        if len(self.contents) == self.count:
            self.complete.set()


def _slow(bench: Bench, seconds: float) -> threading.Event:
    """Let the server take so long for each object; says when it is asked for the first one."""
    begun = threading.Event()

    def slow(_: BaseHTTPRequestHandler) -> bool:
        begun.set()
        time.sleep(seconds)
        return False

    bench.server.faults["*"] = slow
    return begun


def _leftovers(bench: Bench) -> list[Path]:
    return list((bench.cache.directory / "txn").iterdir())


def test_all_come_once_and_are_told_of(bench: Bench) -> None:
    contents = [os.urandom(100 + 37 * number) for number in range(300)] + [os.urandom(3 << 20)]
    all_wanted = [_wanted(bench, content) for content in contents]
    arrivals = Arrivals(len(contents))
    with closing(_prefetcher(bench)) as prefetcher:
        tasks = [Task(wanted, arrivals.arrive) for wanted in all_wanted]
        assert prefetcher.submit([*tasks, *tasks]) == len(tasks)
        _wait(arrivals.complete)
        assert prefetcher.submit(tasks) == 0
    assert [arrivals.contents[bench.cache.path(wanted.name.digest)] for wanted in all_wanted] == contents
    assert set(bench.server.requests.values()) == {1}
    assert bench.counters[Count.DOWNLOADS] == len(contents)
    assert bench.counters[Count.BYTES_RECEIVED] == sum(len(compress(content)) for content in contents)
    assert not _leftovers(bench)


def test_a_reader_waits_for_what_is_under_way(bench: Bench) -> None:
    wanted = _wanted(bench, b"content")
    begun = _slow(bench, 0.3)
    with closing(_prefetcher(bench)) as prefetcher:
        prefetcher.submit([Task(wanted, _ignore)])
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
    arrivals = Arrivals(1)
    with closing(_prefetcher(bench)) as prefetcher:
        prefetcher.submit([Task(wanted, arrivals.arrive)])
        _wait(arrivals.complete)
    assert list(arrivals.contents.values()) == [b"content"]
    assert len(asked) == 2
    assert bench.counters.failures()["bad_data"] == 1


def test_what_is_not_there_is_an_error_for_readers_only(bench: Bench) -> None:
    missing = Wanted(ObjectName(Digest.of(b"nothing")), 7)
    good = _wanted(bench, b"content")
    arrivals = Arrivals(1)
    with closing(_prefetcher(bench)) as prefetcher:
        prefetcher.submit([Task(missing, _ignore), Task(good, arrivals.arrive)])
        _wait(arrivals.complete)
        with pytest.raises(NotFoundError):
            bench.read(missing)


def test_a_worker_that_is_killed_costs_nothing_but_time(bench: Bench) -> None:
    _everything_arrives_although_workers_get(bench, signal.SIGKILL)
    assert not _leftovers(bench)


def test_closing_does_not_wait_for_a_queue(bench: Bench) -> None:
    _slow(bench, 0.05)
    prefetcher = _prefetcher(bench)
    all_wanted = [_wanted(bench, b"%d" % number) for number in range(500)]
    prefetcher.submit([Task(wanted, _ignore) for wanted in all_wanted])
    start = time.monotonic()
    prefetcher.close()
    assert time.monotonic() - start < 2
    assert not _leftovers(bench)
    # Nobody waits for ever for what was given up.
    assert bench.read(all_wanted[-1]) == b"499"


def test_a_worker_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetcher_module, "_SILENCE", 0.5)
    _everything_arrives_although_workers_get(bench, signal.SIGSTOP)


def _everything_arrives_although_workers_get(bench: Bench, number: signal.Signals) -> None:
    """Send a signal to the worker while it fetches."""
    contents = [b"content %d" % number for number in range(200)]
    arrivals = Arrivals(len(contents))
    begun = _slow(bench, 0.01)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    with closing(_prefetcher(bench)) as prefetcher:
        prefetcher.submit([Task(_wanted(bench, content), arrivals.arrive) for content in contents])
        _wait(begun)
        for child in set(children.read_text().split()) - before:
            os.kill(int(child), number)
        _wait(arrivals.complete)
    assert sorted(arrivals.contents.values()) == sorted(contents)


def test_orders_do_not_each_wait_for_a_proxy_that_is_silent(tmp_path: Path) -> None:
    """Twelve at a time, a second each: 200 would take 17 seconds."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent, _bench(tmp_path) as bench:
        values = {
            "CVMFS_SERVER_URL": "http://repository.example.org",
            "CVMFS_HTTP_PROXY": f"http://127.0.0.1:{silent.getsockname()[1]};{bench.server.url}",
            "CVMFS_PUBLIC_KEY": "/k",
            "CVMFS_TIMEOUT": "1",
            "CVMFS_MAX_RETRIES": "0",
        }
        network = Network(load_settings("a.b", tmp_path, values).network, bench.counters, "")
        fetcher = Fetcher(network.transfer, bench.cache, bench.counters)
        bench.server.faults["*"] = _as_a_proxy
        contents = [b"content %d" % number for number in range(200)]
        arrivals = Arrivals(len(contents))
        began = time.monotonic()
        with closing(network), closing(Prefetcher(fetcher, network.transfer, bench.cache.directory)) as ahead:
            ahead.submit([Task(_wanted(bench, content), arrivals.arrive) for content in contents])
            _wait(arrivals.complete)
        assert time.monotonic() - began < 8
    assert sorted(arrivals.contents.values()) == sorted(contents)


def _as_a_proxy(handler: BaseHTTPRequestHandler) -> bool:
    handler.path = urlsplit(handler.path).path
    file = handler.server.root / handler.path.lstrip("/")  # type: ignore[attr-defined]
    handler.reply(file.read_bytes())  # type: ignore[attr-defined]
    return True
