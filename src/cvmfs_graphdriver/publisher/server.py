"""A small HTTP server for a storage directory, for demos, tests and evaluation.

Owns: GET and HEAD with single ranges, and cache headers as set by stock servers (CernVM-FS format reference,
section 6.4). Must not know: what a repository is. In production, nginx or Apache serves the same directory.
"""

import os
import re
import stat
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from io import FileIO
from pathlib import Path

from cvmfs_graphdriver.http.server import Handler, HttpServer, listen, running
from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["Served", "serve"]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_DATA_AGE, _ROOT_AGE = 259200, 61
_DATA_TYPE, _ROOT_TYPE = "application/octet-stream", "application/x-cvmfs"
_PIECE = 1 << 17


@dataclass(slots=True)
class Served:
    """A running server: its ``url`` (without a trailing slash) and what it has sent so far."""

    url: str
    requests: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, amount: int) -> None:
        """Count one request that was answered with ``amount`` bytes of content."""
        with self._lock:
            self.requests += 1
            self.bytes += amount


class _StorageHandler(Handler):
    directory: int
    served: Served

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        try:
            descriptor = _open_regular(self.directory, name)
        except OSError:
            self.served.count(0)
            self.answer(HTTPStatus.NOT_FOUND, b"", {})
            return
        with open(descriptor, "rb", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            asked = _asked_range(self.header("Range"), size)
            if asked is not None and not asked:
                headers = {"Content-Range": f"bytes */{size}"}
                self.served.count(0)
                self.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", headers)
                return
            span = asked or range(size)
            headers = {
                "Content-Type": _ROOT_TYPE if "/.cvmfs" in f"/{name}" else _DATA_TYPE,
                "Cache-Control": f"max-age={_DATA_AGE if '/data/' in f'/{name}' else _ROOT_AGE}",
                "Accept-Ranges": "bytes",
                "Content-Length": str(len(span)),
            }
            if asked:
                headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
            self.served.count(len(span) if with_content else 0)
            self.begin(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, headers)
            if with_content:
                self._send(file, span)

    def _send(self, file: FileIO, span: range) -> None:
        file.seek(span.start)
        left = len(span)
        while left > 0 and (data := file.read(min(left, _PIECE))):
            self.write(data)
            left -= len(data)


class _StorageServer(HttpServer):
    most_connections = 512
    most_threads = 128


@contextmanager
def serve(directory: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """Serve the files below ``directory`` until the block ends; port 0 takes a free one.

    Raises StorageError: the directory does not exist, or the address is in use.
    """
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot serve {directory}: {error.strerror}") from error
    try:
        handler = type("Handler", (_StorageHandler,), {"directory": root})
        try:
            server = _StorageServer(listen(host, port), handler)
        except OSError as error:
            raise StorageError(f"cannot serve at {host}:{port}: {error.strerror}") from error
        served = Served(f"http://{host}:{server.port}")
        handler.served = served  # type: ignore[attr-defined]
        with running(server):
            yield served
    finally:
        os.close(root)


def _asked_range(text: str, size: int) -> range | None:
    """The bytes that a Range header requests (RFC 9110, section 14): empty if the file has none of them.

    None if the header is to be ignored: it is absent or malformed, or has several ranges.
    """
    match = _RANGE.fullmatch(text)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    return range(first, min(int(match[2]) + 1, size) if match[2] else size)


def _open_regular(directory: int, name: str) -> int:
    """Open a regular file below a directory, never outside of it. Raises OSError."""
    try:
        descriptor = open_beneath(directory, os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK)
    except PathEscapeError as error:
        raise FileNotFoundError(name) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor
