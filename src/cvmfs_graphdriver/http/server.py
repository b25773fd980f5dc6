"""The base of our HTTP servers: cheroot, with limits, and quiet (docs/adr/0026-http-server.md).

Owns: how many connections are open at once, how long a client may be silent, how long a request may take to
arrive and a piece of an answer to leave, how long a body may be, and what is logged. A connection has a
thread only while a request on it is read and answered. If threads or places run short, the client that has
kept us waiting longest loses its own, so slow clients cannot keep others out. Must not know: what is served,
nor which kind of socket it comes through.
"""

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

from cheroot.server import Gateway, HTTPConnection, HTTPRequest, HTTPServer

__all__ = ["Handler", "HttpServer", "listen", "running"]

_log = logging.getLogger(__name__)

_BACKLOG = 128
_HEAD_LIMIT = 1 << 16
_GROWTH = 8
"""Threads that are started together."""
_FOREVER = 2_000_000
"""Seconds, or 23 days: poll() takes no more than 2^31 milliseconds."""
_STEP = 0.25


class Handler(Gateway):
    """Answers one request; subclasses add ``do_GET`` and its like."""

    timeout: ClassVar[float | None] = 60.0
    """Seconds that a client may be silent, within a request or between two."""
    patience: ClassVar[float | None] = 30.0
    """Seconds for a request to arrive, and for one piece of the answer to leave; None: any time."""
    body_limit: ClassVar[int | None] = 0
    """Bytes of a request's body; None: no limit, it may come in chunks, and ``do_…`` reads it."""
    body = b""
    """The request's body, if it is limited."""

    @property
    def server(self) -> Any:
        """The server that this is a request to."""
        return self.req.server

    @property
    def path(self) -> str:
        """The request's target, not decoded."""
        return str(self.req.uri, "latin-1")

    @property
    def client(self) -> str:
        """The client's address; empty on a unix socket."""
        return self.req.conn.remote_addr or ""

    def header(self, name: str) -> str:
        """A header of the request; empty if it is absent."""
        return str(self.req.inheaders.get(name.title().encode(), b""), "latin-1")

    def respond(self) -> None:
        """Answer the request; called by the server."""
        length = self.header("Content-Length") or "0"
        if not length.isdecimal():
            self.refuse(HTTPStatus.BAD_REQUEST)
        elif self.req.chunked_read and self.body_limit is not None:
            self.refuse(HTTPStatus.LENGTH_REQUIRED)
        elif (method := getattr(self, "do_" + str(self.req.method, "latin-1"), None)) is None:
            self.refuse(HTTPStatus.NOT_IMPLEMENTED)
        else:
            if self.body_limit is not None:
                self.body = self.req.rfile.read()
            self.req.conn.since = None
            method()

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Send the head of the response."""
        self.req.status = f"{status.value} {status.phrase}".encode()
        self.req.outheaders = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.req.ensure_headers_sent()

    def write(self, data: bytes | memoryview) -> None:
        """Send some of the response's body."""
        self.req.conn.since = time.monotonic()
        self.req.write(data)
        self.req.conn.since = None

    def answer(self, status: HTTPStatus, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole response."""
        self.begin(status, {**headers, "Content-Length": str(len(content))})
        self.write(content)

    def refuse(self, status: HTTPStatus) -> None:
        """Send a response without content, and hang up."""
        self.req.close_connection = True
        self.answer(status, b"", {})

    def target(self) -> SplitResult:
        """The request's path and query; only targets that begin with one slash get here."""
        return urlsplit(self.path)


class _AnyRequest(HTTPRequest):
    """A request that may be anything."""

    def parse_request(self) -> None:
        try:
            super().parse_request()
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  cheroot's parser fails in many ways
            _log.debug("a request is not valid: %r", error)
            self.ready = False
            self.simple_response("400 Bad Request")


class _Connection(HTTPConnection):
    """A connection; ``since`` is when the client began to keep us waiting, None while we let it wait."""

    RequestHandlerClass = _AnyRequest

    def __init__(self, server: "HttpServer", sock: socket.socket, *how: Any) -> None:
        super().__init__(server, sock, *how)
        self.since: float | None = time.monotonic()
        self.is_busy = False
        self.has_thread = False
        server.connections.add(self)

    def communicate(self) -> Any:
        self.has_thread = True
        try:
            return super().communicate()  # type: ignore[no-untyped-call]
        finally:
            self.has_thread = False

    def hang_up(self) -> None:
        """Shut it down, from any thread; whoever reads from it closes it as a consequence."""
        self.since = None  # once is enough
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.server.connections.discard(self)
        with suppress(OSError):
            super().close()


class HttpServer(HTTPServer):
    """Serves the connections of a listening socket, which it closes at its end."""

    ConnectionClass = _Connection
    request_queue_size = _BACKLOG
    expiration_interval = _STEP
    most_connections: ClassVar[int] = 256
    """How many are open at once."""
    most_threads: ClassVar[int] = 64
    """How many requests are read and answered at once."""
    grace: ClassVar[float | None] = None
    """Seconds that the end of the server waits for requests that are being answered; None: as they need."""

    def __init__(self, listener: socket.socket, handler: type[Handler]) -> None:
        address = listener.getsockname()
        address = address[:2] if isinstance(address, tuple) else address
        super().__init__(address, handler, _GROWTH, self.most_threads, "cvmfs-graphdriver")
        limit = handler.body_limit
        self.max_request_header_size = _HEAD_LIMIT
        self.max_request_body_size = 0 if limit is None else max(limit, 1)  # 0 would be no limit
        self.keep_alive_conn_limit = self.most_connections
        self.timeout = handler.timeout or _FOREVER  # type: ignore[assignment]
        self.connections: set[_Connection] = set()
        self.serving = threading.Event()
        self._listener = listener
        self._patience = handler.patience
        self._threads = _GROWTH
        self._ended = threading.Event()

    @property
    def port(self) -> int:
        """The port of a TCP server."""
        port: int = self._listener.getsockname()[1]
        return port

    def hang_up(self) -> None:
        """Shut down all connections."""
        for connection in self.connections.copy():
            connection.hang_up()

    # What cheroot calls

    def bind(self, *_: Any) -> None:
        self.socket = self._listener

    def bind_unix_socket(self, _: Any) -> None:
        self.socket = self._listener

    def serve(self) -> None:
        self.serving.set()
        if self._patience is not None:
            threading.Thread(
                target=self._watch, args=(self._patience,), name="http-patience", daemon=True
            ).start()
        super().serve()

    def stop(self) -> None:
        self._ended.set()
        self.hang_up()
        super().stop()

    def process_conn(self, conn: _Connection) -> None:
        """Decide what becomes of a connection that is new, or from which something can be read."""
        if conn.last_used is None:
            if len(self.connections) > self.most_connections and not self._make_place(conn):
                _log.warning("a connection was closed: %d are open already", self.most_connections)
                conn.close()
            else:
                self.put_conn(conn)  # it gets a thread when there is something to read
            return
        conn.is_busy = True
        conn.since = time.monotonic()
        if self._busy() > self._threads < self.most_threads:
            self.requests.grow(_GROWTH)
            self._threads += _GROWTH
        super().process_conn(conn)

    def put_conn(self, conn: _Connection) -> None:
        conn.is_busy = False
        conn.since = time.monotonic()
        super().put_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002
        """A client that has gone away is not worth a line in the log."""
        level = level if level >= logging.ERROR else logging.DEBUG
        _log.log(level, "a request failed: %s", ascii(msg), exc_info=traceback)

    def _busy(self) -> int:
        """How many connections have a thread or need one."""
        return sum(each.is_busy for each in self.connections.copy())

    def _slowest(self) -> list[_Connection]:
        """The clients that keep us waiting, the slowest first; none if there is all the time in the world."""
        waiting = [(each.since, each) for each in self.connections.copy() if self._patience]
        return [each for since, each in sorted(waiting, key=lambda one: one[0] or 0) if since is not None]

    def _make_place(self, newer: _Connection) -> bool:
        """Hang up on the slowest client; returns whether there was one."""
        slowest = next((each for each in self._slowest() if each is not newer), None)
        if slowest is not None:
            slowest.hang_up()
        return slowest is not None

    def _watch(self, patience: float) -> None:
        """Hang up on clients that are too slow for our patience, or for those who wait for their threads."""
        while not self._ended.wait(_STEP):
            now = time.monotonic()
            needed = self._busy() - self.most_threads
            for each in self._slowest():
                waited = now - (each.since or now)
                if each.has_thread and (waited > patience or (needed > 0 and waited > _STEP)):
                    each.hang_up()
                    needed -= 1


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises OSError."""
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    # Connections inherit it. Head and body of a response are sent apart: without it, the body of each but the
    # first on a connection waits for the client's delayed acknowledgement of the head, about 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def running(server: HttpServer) -> Iterator[None]:
    """Run the server in threads of its own until the block ends; then all connections are shut down.

    Raises OSError: there are no threads to be had.
    """
    thread = threading.Thread(target=server.start, name="http", daemon=True)
    thread.start()
    while not server.serving.wait(_STEP):
        if not thread.is_alive():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    try:
        yield
    finally:
        end = threading.Thread(target=server.stop, name="http-end", daemon=True)
        end.start()
        end.join(server.grace)
        thread.join(server.grace)
