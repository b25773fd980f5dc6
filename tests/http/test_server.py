"""The base of the HTTP servers: limits, and what becomes of clients that misbehave."""

import http.client
import logging
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from cvmfs_graphdriver.http.server import Handler, HttpServer, listen, running

BODY_LIMIT = 1000


class Echo(Handler):
    timeout = 0.5
    body_limit = BODY_LIMIT

    def do_GET(self) -> None:
        if self.path == "/defect":
            raise ValueError("a defect")
        self.answer(HTTPStatus.OK, self.target().path.encode(), {"Content-Type": "text/plain"})

    def do_POST(self) -> None:
        self.answer(HTTPStatus.OK, self.body, {})


class Narrow(HttpServer):
    most_connections = 2


@pytest.fixture
def port() -> Iterator[int]:
    server = Narrow(listen("127.0.0.1", 0), Echo)
    with running(server):
        yield server.port


def exchange(port: int, request: bytes) -> bytes:
    """All that the server answers until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def get(port: int, path: str = "/") -> bytes:
    return exchange(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())


def test_a_request_is_answered(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/hello")
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("Server"), reply.read()) == (
        200,
        "cvmfs-graphdriver",
        b"/hello",
    )
    connection.close()


def test_responses_do_not_wait_for_acknowledgements(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        connection.request("GET", "/hello")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - started)
    connection.close()
    assert sorted(seconds)[10] < 0.03  # a delayed acknowledgement takes 0.04


def test_the_path_is_told_from_the_query(port: int) -> None:
    assert get(port, "/a?b=c").partition(b"\r\n\r\n")[2] == b"/a"


@pytest.mark.parametrize("target", ["http://host/a", "http://[::1", "//[::1/a", "*", "a"])
def test_a_target_that_is_not_a_path_is_refused(port: int, target: str) -> None:
    assert b" 400 " in get(port, target).partition(b"\r\n")[0]


@pytest.mark.parametrize("length", ["1001", "-1", "+1", "1e3", "\xb2", "9" * 5000, "one"])
def test_a_body_that_is_too_long_or_of_unknown_length_is_refused(port: int, length: str) -> None:
    request = f"POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    assert exchange(port, request).split(b" ")[1] in {b"400", b"413"}


@pytest.mark.parametrize("body", [b"", b"x" * BODY_LIMIT])
def test_a_body_within_the_limit_is_read(port: int, body: bytes) -> None:
    request = b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert exchange(port, request).partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 70_000,
        b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 20_000,
        b"GET / HTTP/1.0\r\na: " + b"b" * 70_000,
    ],
)
def test_heads_that_are_too_long_are_refused(port: int, request_bytes: bytes) -> None:
    assert exchange(port, request_bytes + b"\r\n\r\n").split(b" ")[1] in {b"414", b"413"}


@pytest.mark.parametrize("head", [b"GET http://[::1 HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n folded: x\r\n"])
def test_a_head_that_the_library_does_not_understand_is_refused(
    port: int, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert exchange(port, head + b"\r\n").startswith(b"HTTP/1.1 400 ")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_silent_client_is_hung_up_on(port: int) -> None:
    started = time.monotonic()
    assert b" 408 " in exchange(port, b"GET / HT")
    assert time.monotonic() - started < 5


def test_a_body_in_chunks_is_refused(port: int) -> None:
    request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert b" 411 " in exchange(port, request)


@pytest.mark.parametrize("method", ["PUT", "X" * 1000, "DO_GET", "__CLASS__"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    assert b" 501 " in exchange(port, f"{method} / HTTP/1.1\r\n\r\n".encode())


def test_connections_above_the_limit_take_the_place_of_the_slowest(port: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", port)) as first,
        socket.create_connection(("127.0.0.1", port)) as second,
    ):
        first.sendall(b"GET")
        second.sendall(b"GET")
        started = time.monotonic()
        assert b"200 OK" in get(port)
        assert time.monotonic() - started < 0.4  # before they time out


def test_a_defect_is_logged_and_a_broken_connection_is_not(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert b" 500 " in get(port, "/defect")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    caplog.clear()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\n")  # and then a reset
    assert b"200 OK" in get(port)
    assert caplog.records == []


def test_connections_end_with_the_block() -> None:
    server = HttpServer(listen("127.0.0.1", 0), Echo)
    with running(server):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.sendall(b"GET")
        assert b"200 OK" in get(server.port)
    assert client.recv(1) == b""
    client.close()
