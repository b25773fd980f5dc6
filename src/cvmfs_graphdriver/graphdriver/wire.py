"""The wire format of the graph driver plugin protocol: HTTP/1.1 with JSON over a unix socket.

Owns: chunked request bodies, streamed replies, and how failures are reported: ``{"Err": …}`` before a reply
has begun, with an HTTP error status where Docker expects a stream; afterwards by an incomplete stream.
Follows Docker's "Graph driver plugins" (docs: engine/extend). Must not know: what any call does.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedIOBase, BufferedWriter, RawIOBase
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from cvmfs_graphdriver.graphdriver.errors import RequestError
from cvmfs_graphdriver.http.server import Handler, HttpServer

__all__ = ["Call", "PluginServer", "Reply", "Streamed", "listen"]

_CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
_BODY_LIMIT = 1 << 20
_BUFFER = 1 << 16
_LINE_LIMIT = 256
_STREAMED = "GraphDriver.Diff"
_BACKLOG = 128

Reply = Mapping[str, Any]
"""A reply's JSON object."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply that is a byte stream: ``write`` is called with the file to write it to."""

    write: Callable[[BufferedIOBase], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request; ``method`` is its path without the slash, e.g. ``GraphDriver.Get``."""

    method: str
    query: Mapping[str, str]
    body: "BodyReader"

    def arguments(self) -> dict[str, Any]:
        """The JSON object in the body. Raises RequestError."""
        data = self.body.read_up_to(_BODY_LIMIT)
        if not data.strip():
            return {}
        try:
            document = json.loads(data)
        except ValueError as error:
            raise RequestError(f"{self.method}: the request is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise RequestError(f"{self.method}: the request is not a JSON object")
        return document


class BodyReader(BufferedIOBase):
    """A request's body, with a known length or in chunks (RFC 9112, section 7.1)."""

    def __init__(self, source: BufferedIOBase, *, length: int | None, chunked: bool) -> None:
        super().__init__()
        self._source = source
        self._chunked = chunked
        self._left = 0 if chunked else length or 0
        self._ended = not chunked and not self._left

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end. Raises RequestError: the body is truncated."""
        wanted = size if size is not None and size >= 0 else None
        pieces: list[bytes] = []
        total = 0
        while not self._ended and (wanted is None or total < wanted):
            if self._chunked and not self._left:
                self._next_chunk()
                continue
            data = self._source.read(min(self._left, 1 << 20, (wanted or 1 << 20) - (total if wanted else 0)))
            if not data:
                raise RequestError("the request's body is truncated")
            self._left -= len(data)
            if not self._chunked and not self._left:
                self._ended = True
            pieces.append(data)
            total += len(data)
        return b"".join(pieces)

    def read_up_to(self, limit: int) -> bytes:
        """The whole body. Raises RequestError: it has more than ``limit`` bytes."""
        data = self.read(limit + 1)
        if len(data) > limit:
            raise RequestError(f"the request's body has more than {limit} bytes")
        return data

    def drain(self) -> None:
        """Read and discard the rest, so that the connection can be used again."""
        while self.read(1 << 20):
            pass

    def _next_chunk(self) -> None:
        line = self._source.readline(_LINE_LIMIT)
        if line in (b"\r\n", b"\n"):
            line = self._source.readline(_LINE_LIMIT)
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise RequestError("the request's body has an invalid chunk") from error
        if not self._left:
            self._ended = True
            while self._source.readline(_LINE_LIMIT) not in (b"\r\n", b"\n", b""):
                pass


class _ReplyBody(RawIOBase):
    """A reply's body, begun with the first bytes; nothing is sent any more once it is ``broken``."""

    def __init__(self, write: Callable[[memoryview], None], begin: Callable[[], None]) -> None:
        super().__init__()
        self._write = write
        self._begin = begin
        self.begun = False
        self.broken = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if not self.broken:
            self.begin()
            self._write(data)
        return len(data)

    def begin(self) -> None:
        """Send the head of the reply, unless it has been sent."""
        if not self.begun:
            self.begun = True
            self._begin()


class _DriverHandler(Handler):
    timeout: ClassVar[float | None] = None
    """Docker keeps idle connections, and repeats a call with an empty body if it finds one closed."""
    patience: ClassVar[float | None] = None
    """The answer to a layer begins after the layer's last byte."""
    body_limit: ClassVar[int | None] = None

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        chunked = self.req.chunked_read
        source = self.req.conn.rfile if chunked else self.req.rfile
        body = BodyReader(source, length=int(self.header("Content-Length") or "0"), chunked=chunked)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        call = Call(url.path.lstrip("/"), query, body)
        reply = self.server.answer(call)
        try:
            body.drain()
        except RequestError:
            self.req.close_connection = True
        if isinstance(reply, Streamed):
            self._stream(reply)
        else:
            self._send(reply, failed_stream=call.method == _STREAMED)

    def _send(self, reply: Reply, *, failed_stream: bool) -> None:
        data = json.dumps(reply).encode()
        status = HTTPStatus.INTERNAL_SERVER_ERROR if failed_stream else HTTPStatus.OK
        self.answer(status, data, {"Content-Type": _CONTENT_TYPE})

    def _stream(self, reply: Streamed) -> None:
        body = _ReplyBody(self.write, lambda: self.begin(HTTPStatus.OK, {"Content-Type": _CONTENT_TYPE}))
        out = BufferedWriter(body, _BUFFER)
        failure = self.server.guard(lambda: reply.write(out))
        body.broken = failure is not None
        if failure is None:
            body.begin()
            out.flush()
        elif body.begun:
            raise ConnectionAbortedError  # the missing last chunk tells Docker that the stream is broken
        else:
            self._send(failure, failed_stream=True)


def listen(place: Path) -> socket.socket:
    """A listening socket at ``place``; Docker's connections wait until a server accepts them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(place))
    listener.listen(_BACKLOG)
    return listener


class PluginServer(HttpServer):
    """Serves a plugin's socket."""

    most_connections = 1024
    most_threads = 512
    grace = 2.0

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[Call], Reply | Streamed],
        guard: Callable[[Callable[[], None]], Reply | None],
    ) -> None:
        """``answer`` never raises; ``guard`` runs an action and returns a reply if it fails."""
        super().__init__(listener, _DriverHandler)
        self.answer = answer
        self.guard = guard
