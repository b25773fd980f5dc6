"""Whatever the HTTP servers of publishers are sent: they answer or hang up soon, and go on."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

from cvmfs_graphdriver.conversion.publisher_service import PublisherService, running_service
from cvmfs_graphdriver.conversion.uploads import LayerUploads, UploadLimits
from cvmfs_graphdriver.publisher.server import serve
from tests.support.fuzzing import fuzz
from tests.support.hostile_requests import hostile_requests
from tests.support.memory_bucket import MemoryBucket
from tests.support.mutations import INPUTS
from tests.support.storage_site import Site
from tests.support.tars import tar_of

SECRET = b"what lies outside"
NOTIFICATION = b'{"EventName": "s3:ObjectCreated:Put", "Records": [{"s3": {"object": {"key": "0"}}}]}'


def _exchange(port: int, request: bytes) -> bytes:
    """All that a server answers until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=9) as client:
        try:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))
        except TimeoutError:
            raise
        except OSError:  # it has hung up already
            return b""


def _fuzz(start: Callable[[], AbstractContextManager[str]], good: list[bytes], sane: str) -> None:
    """Send hostile requests, and now and then a sane one."""
    stack = ExitStack()
    number, url = 0, ""

    def use(request: bytes) -> str:
        nonlocal number, url
        if not url:
            url = stack.enter_context(start())  # here, since threads do not survive a fork
        answer = _exchange(int(url.rpartition(":")[2]), request)
        assert SECRET not in answer
        number += 1
        if number % 100 == 1:
            assert urllib3.request("GET", f"{url}{sane}", retries=False, timeout=9.0).status == 200
        return answer[:12].decode("latin-1") if answer.startswith(b"HTTP/1.") else f"{answer[:9]!r}"

    statuses = {status[-3:] for status in fuzz(use, hostile_requests(good, INPUTS))}
    assert {"200", "400", "404", "501"} <= statuses
    assert not {"500", "503"} & statuses


@pytest.mark.fuzz
@pytest.mark.parametrize("token", ["", "secret"])
def test_the_publisher_service(token: str, tmp_path: Path) -> None:
    good = [
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\nAuthorization: Bearer secret\r\n\r\n" % len(NOTIFICATION)
        + NOTIFICATION,
        b"GET /status/%064d HTTP/1.0\r\nHost: localhost\r\n\r\n" % 5,
    ]
    site = Site(tmp_path)
    bucket = MemoryBucket(tar_of({"file": b"content"}), b"no tar")
    uploads = LayerUploads(bucket, site.open(), UploadLimits())  # type: ignore[arg-type]
    service = PublisherService(uploads, interval=0.5, token=token)
    _fuzz(lambda: running_service(service, "127.0.0.1", 0), good, f"/status/{'0' * 64}")


@pytest.mark.fuzz
def test_the_server_of_a_storage_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    www = tmp_path / "www"
    (www / "sub").mkdir(parents=True)
    (www / "file").write_bytes(b"content" * 100)
    (www / "up").symlink_to("..")
    os.mkfifo(www / "pipe")
    good = [
        b"GET /file HTTP/1.1\r\nRange: bytes=5-9\r\nHost: localhost\r\n\r\n",
        b"HEAD /file HTTP/1.1\r\n\r\nGET /sub/../file HTTP/1.1\r\n\r\n",
    ]

    @contextmanager
    def start() -> Iterator[str]:
        with serve(www) as served:
            yield served.url

    _fuzz(start, good, "/file")
