"""The base of our HTTP servers: a thread per connection, with limits, and quiet.

Owns: how many connections are served at once, how long a client may be silent, how long a body may be, and
what is logged. The standard library limits request lines and headers: 64 KiB per line, 100 headers. Must not
know: what is served, nor which kind of socket it comes through.
"""

import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

__all__ = ["Handler", "HttpServer", "listen", "running"]

_log = logging.getLogger(__name__)

_BACKLOG = 128
_PLACE_WAIT = 5.0
"""Seconds that a connection above the limit waits before it is closed."""

_STEP = 0.1


class Handler(BaseHTTPRequestHandler):
    """Serves one connection; subclasses add ``do_GET`` and its like."""

    server_version = "cvmfs-graphdriver"
    sys_version = ""
    timeout: ClassVar[float | None] = 60.0
    """Seconds that a client may be silent."""
    patience: ClassVar[float | None] = None
    """Seconds until the answer to a request must begin, counted from the end of the one before."""
    server: "HttpServer"
    wbufsize = 1 << 16

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        self.server.expect(self.connection, self.patience)
        super().handle_one_request()

    def begin(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Send the head of the response."""
        self.server.expect(self.connection, None)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: HTTPStatus, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole response."""
        self.begin(status, {**headers, "Content-Length": str(len(content))})
        self.wfile.write(content)

    def target(self) -> SplitResult:
        """The request's path and query; both are empty if the client's address is invalid."""
        try:
            return urlsplit(self.path)
        except ValueError:
            return SplitResult("", "", "", "", "")

    def content_length(self, limit: int) -> int | None:
        """The body's declared length, by default 0; None if it is invalid or above ``limit``."""
        text = self.headers.get("Content-Length", "0")
        if not text.isdecimal() or len(text) > len(str(limit)) or int(text) > limit:
            return None
        return int(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug("%s", ascii(format % args))


class HttpServer(ThreadingMixIn, TCPServer):
    """Serves the connections of a listening socket, which it closes at its end."""

    daemon_threads = True
    most_connections: ClassVar[int] = 64
    """How many are served at once."""

    def __init__(self, listener: socket.socket, handler: type[Handler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._places = threading.BoundedSemaphore(self.most_connections)
        self._open: dict[socket.socket, float] = {}

    @property
    def port(self) -> int:
        """The port of a TCP server."""
        port: int = self.socket.getsockname()[1]
        return port

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        end = time.monotonic() + _PLACE_WAIT
        while not self._places.acquire(timeout=min(_PLACE_WAIT, _STEP)):
            self.service_actions()
            if time.monotonic() > end:
                _log.warning("a connection was closed: %d are open already", self.most_connections)
                self.shutdown_request(request)
                return
        self._open[request] = math.inf
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(request, None)
            self._places.release()

    def expect(self, connection: socket.socket, seconds: float | None) -> None:
        """Hang up on a connection after these seconds; None: not any more."""
        if connection in self._open:
            self._open[connection] = math.inf if seconds is None else time.monotonic() + seconds

    def service_actions(self) -> None:
        """Hang up on clients that send their requests too slowly; called often while the server runs."""
        self.hang_up(time.monotonic())

    def hang_up(self, until: float = math.inf) -> None:
        """Shut down the connections whose time ended before; their threads end as a consequence."""
        for connection, end in self._open.copy().items():
            if end > until:
                continue
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is not worth a line in the log."""
        del request
        expected = isinstance(sys.exception(), OSError)
        level = logging.DEBUG if expected else logging.ERROR
        _log.log(level, "a request of %s failed", client_address, exc_info=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises OSError."""
    return socket.create_server((host, port), backlog=_BACKLOG)


@contextmanager
def running(server: HttpServer) -> Iterator[None]:
    """Run the server in a thread of its own until the block ends; then all connections are shut down."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="http")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()
