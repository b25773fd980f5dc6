"""The HTTP server: what clients ask, answered as stock servers do, and nothing outside its directory."""

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.server import Served, serve

OBJECT = "cvmfs/images.example.org/data/ab/cdef"
MANIFEST = "cvmfs/images.example.org/.cvmfspublished"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "srv"
    (root / OBJECT).parent.mkdir(parents=True)
    (root / OBJECT).write_bytes(b"0123456789")
    (root / MANIFEST).write_bytes(b"manifest")
    (root / "empty").touch()
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with serve(root) as served:
        yield served


def ask(served: Served, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def test_objects_and_manifests(served: Served) -> None:
    status, headers, body = ask(served, f"/{OBJECT}")
    assert (status, body) == (200, b"0123456789")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Cache-Control"] == "max-age=259200"
    assert headers["Content-Length"] == "10"
    status, headers, body = ask(served, f"/{MANIFEST}")
    assert (status, body) == (200, b"manifest")
    assert headers["Content-Type"] == "application/x-cvmfs"
    assert headers["Cache-Control"] == "max-age=61"


def test_head_has_no_body(served: Served) -> None:
    status, headers, body = ask(served, f"/{OBJECT}", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "10", b"")
    assert ask(served, "/none", "HEAD")[0] == 404


@pytest.mark.parametrize(
    ("wanted", "status", "span", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=7-100", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=-30", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=0-0", 206, "bytes 0-0/10", b"0"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=-0", 416, "bytes */10", b""),
        ("bytes=4-2", 200, None, b"0123456789"),
        ("bytes=1-2,4-5", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
        ("bytes=-", 200, None, b"0123456789"),
        ("bytes=0-" + "9" * 5000, 200, None, b"0123456789"),
    ],
)
def test_ranges(served: Served, wanted: str, status: int, span: str | None, body: bytes) -> None:
    found, headers, content = ask(served, f"/{OBJECT}", Range=wanted)
    assert (found, headers.get("Content-Range"), content) == (status, span, body)


def test_an_empty_file(served: Served) -> None:
    assert ask(served, "/empty")[::2] == (200, b"")
    assert ask(served, "/empty", Range="bytes=0-")[0] == 416


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/",
        "/cvmfs",
        "/cvmfs/",
        "/../secret",
        "/%2e%2e/secret",
        "/cvmfs/../../secret",
        "/cvmfs/%2e%2e%2f%2e%2e%2fsecret",
        "/out",
        "/up/secret",
        "/%00",
        "/pipe",
        "/" + "a" * 300,
        "/" + "a/" * 3000,
        "/%ff%fe",
    ],
)
def test_what_is_not_there_or_not_inside_is_not_found(served: Served, path: str) -> None:
    status, _, body = ask(served, path)
    assert (status, body) == (404, b"")


def test_a_name_that_looks_like_another_host_is_refused(served: Served) -> None:
    assert ask(served, "//etc/passwd")[0] == 400


def test_names_may_be_escaped(served: Served) -> None:
    assert ask(served, f"/{OBJECT.replace('a', '%61')}?query")[2] == b"0123456789"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    assert ask(served, f"/{OBJECT}", method)[0] == 501


def test_a_connection_serves_many_requests(served: Served) -> None:
    connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=10)
    connection.connect()
    ours = connection.sock.getsockname()
    for path, status in ((OBJECT, 200), ("none", 404), (MANIFEST, 200), (OBJECT, 200)):
        connection.request("GET", f"/{path}")
        reply = connection.getresponse()
        reply.read()
        assert reply.status == status
        assert connection.sock.getsockname() == ours
    connection.close()
    assert (served.requests, served.bytes) == (4, 28)


def test_clients_do_not_wait_for_each_other(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as idle:
        idle.sendall(b"GET /slow HTTP/1.1\r\n")  # and never goes on
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda: results.append(ask(served, f"/{OBJECT}")[0])) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [200] * 16


def test_a_client_that_goes_away_harms_nobody(served: Served, root: Path) -> None:
    (root / "big").write_bytes(bytes(32 << 20))
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
    assert ask(served, f"/{OBJECT}")[0] == 200


def test_a_replaced_file_is_served_as_it_was_opened_or_as_it_is(served: Served, root: Path) -> None:
    for number in range(20):
        (root / "new").write_bytes(b"%03d" % number)
        (root / "new").rename(root / MANIFEST)
        assert ask(served, f"/{MANIFEST}")[2] == b"%03d" % number


def test_it_ends_with_its_block_even_with_clients(root: Path) -> None:
    with serve(root) as served:
        connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=10)
        connection.request("GET", f"/{OBJECT}")
        connection.getresponse().read()
        port = int(served.url.rpartition(":")[2])
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with serve(root, port=port) as again:
        assert ask(again, f"/{OBJECT}")[0] == 200


def test_errors_say_what_is_wrong(root: Path, served: Served) -> None:
    with pytest.raises(StorageError, match="cannot serve .*/none: No such file"), serve(root / "none"):
        pass
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(StorageError, match=f"cannot serve at 127.0.0.1:{port}"), serve(root, port=port):
        pass
