"""A web server that misbehaves as scripted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.http_server import QuietServer, in_thread

__all__ = ["Exchange", "Script", "run_server"]


@dataclass(frozen=True)
class Exchange:
    """One request as it came, and the means to answer it."""

    handler: BaseHTTPRequestHandler

    @property
    def line(self) -> str:
        return f"{self.handler.command} {self.handler.path}"

    def header(self, name: str) -> str | None:
        return self.handler.headers.get(name)

    def answer(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        """Answer; ``length`` is what is announced where that differs from what comes."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(body)
        if length is not None:
            self.handler.close_connection = True


@dataclass
class Script:
    """The server's address, what it was asked, and what it does about it."""

    act: Callable[[Exchange], None]
    host: str = ""
    lines: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)


@contextmanager
def run_server(act: Callable[[Exchange], None]) -> Iterator[Script]:
    script = Script(act)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            if int(self.headers.get("Content-Length") or 0):
                self.rfile.read(int(self.headers["Content-Length"]))
            exchange = Exchange(self)
            script.lines.append(exchange.line)
            script.authorizations.append(exchange.header("Authorization"))
            script.act(exchange)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *args: object) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    script.host = f"127.0.0.1:{server.server_port}"
    with in_thread(server):
        yield script
