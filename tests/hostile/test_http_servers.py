"""Clients that want to wear out our HTTP servers."""

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path

import pytest
import urllib3

from cvmfs_graphdriver.conversion.publisher_service import PublisherService, running_service
from cvmfs_graphdriver.http.server import Handler, HttpServer, listen, running
from cvmfs_graphdriver.publisher.server import serve


class CountedUploads:
    def __init__(self) -> None:
        self.listings = 0

    def publish(self) -> int:
        self.listings += 1
        return 0


@pytest.fixture
def uploads() -> CountedUploads:
    return CountedUploads()


def _post(url: str, **headers: str) -> int:
    return urllib3.request("POST", url, headers=headers, body=b"{}", retries=False, timeout=10.0).status


def test_many_notifications_make_few_listings(uploads: CountedUploads) -> None:
    service = PublisherService(uploads, interval=60)  # type: ignore[arg-type]
    started = time.monotonic()
    with running_service(service, "127.0.0.1", 0) as url:
        for _ in range(200):
            assert _post(url) == 200
        posted = time.monotonic() - started
        deadline = time.monotonic() + 5
        while uploads.listings < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 2 <= uploads.listings <= posted + 3


def test_notifications_need_the_token(uploads: CountedUploads) -> None:
    service = PublisherService(uploads, interval=60, token="secret")  # type: ignore[arg-type]
    with running_service(service, "127.0.0.1", 0) as url:
        for header in (
            "",
            "secret",
            "Bearer",
            "Bearer wrong",
            "Bearer secret2",
            "Bearer \xe9",
            "Basic secret",
        ):
            assert _post(url, Authorization=header) == 403
        assert _post(url) == 403
        assert uploads.listings == 1
        assert _post(url, Authorization="Bearer secret") == 200


@pytest.mark.parametrize(
    ("token", "authorization", "host", "may"),
    [
        ("", "", "127.0.0.1", True),
        ("", "", "::1", True),
        ("", "", "192.0.2.1", False),
        ("", "Bearer ", "192.0.2.1", False),
        ("secret", "Bearer secret", "192.0.2.1", True),
        ("secret", "", "127.0.0.1", False),
    ],
)
def test_who_may_notify(
    uploads: CountedUploads, token: str, authorization: str, host: str, *, may: bool
) -> None:
    service = PublisherService(uploads, interval=60, token=token)  # type: ignore[arg-type]
    assert service.may_wake(authorization, host) is may


def test_a_server_does_not_remember_what_it_was_asked_for(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        for number in range(50):
            assert urllib3.request("GET", f"{served.url}/{number}", retries=False).status == 404
        assert served.requests == 50
        held = [getattr(served, field.name) for field in dataclasses.fields(served)]
        assert not any(isinstance(value, dict | list | set) for value in held)


class _Slow(Handler):
    timeout = 10.0
    patience = 0.5

    def do_GET(self) -> None:
        self.answer(HTTPStatus.OK, b"", {})


class _Narrow(HttpServer):
    most_threads = 8


@pytest.fixture
def drops() -> Iterator[threading.Event]:
    stop = threading.Event()
    yield stop
    stop.set()


def test_clients_that_send_drop_by_drop_lose_their_places(drops: threading.Event) -> None:
    server = _Narrow(listen("127.0.0.1", 0), _Slow)

    def drip() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            while not drops.wait(0.05):
                try:
                    client.send(b"G")
                except OSError:
                    return

    with running(server):
        threads = [threading.Thread(target=drip) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        reply = urllib3.request("GET", f"http://127.0.0.1:{server.port}/", retries=False, timeout=10.0)
        assert reply.status == 200
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()


def test_64_slow_connections_stop_neither_the_publisher_nor_its_end(
    uploads: CountedUploads, drops: threading.Event
) -> None:
    """They send requests drop by drop, come again when they are hung up on, and outnumber threads."""
    service = PublisherService(uploads, interval=60)  # type: ignore[arg-type]
    begun = threading.Semaphore(0)

    def drip(port: int) -> None:
        while not drops.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
                begun.release()
                while not drops.wait(0.2):
                    client.sendall(b"x")

    with running_service(service, "127.0.0.1", 0) as url:
        port = int(url.rpartition(":")[2])
        threads = [threading.Thread(target=drip, args=(port,)) for _ in range(72)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert begun.acquire(timeout=20)
        for _ in range(10):
            started = time.monotonic()
            assert _post(url) == 200
            assert time.monotonic() - started < 5
        started = time.monotonic()
    assert time.monotonic() - started < 10
    drops.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_clients_that_do_not_read_do_not_keep_others_out(tmp_path: Path) -> None:
    """They ask for more than the kernel's buffers hold, and read nothing of it."""
    with open(tmp_path / "big", "wb") as file:
        file.truncate(64 << 20)
    with serve(tmp_path) as served, ExitStack() as stack:
        port = int(served.url.rpartition(":")[2])
        for _ in range(140):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        started = time.monotonic()
        assert urllib3.request("GET", f"{served.url}/none", retries=False, timeout=20.0).status == 404
        assert time.monotonic() - started < 10
