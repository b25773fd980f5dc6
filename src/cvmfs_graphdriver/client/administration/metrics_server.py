"""Serving metrics to Prometheus over HTTP.

Owns: the path ``/metrics`` and the type of the answer. Must not know: what is measured.
"""

from collections.abc import Callable
from http import HTTPStatus

from cvmfs_graphdriver.http.server import Handler, HttpServer, listen

__all__ = ["metrics_server"]

_TYPE = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


def metrics_server(host: str, port: int, text: Callable[[], bytes]) -> HttpServer:
    """A server at this address, not yet running; ``text`` is called for each request. Raises OSError."""

    class MetricsHandler(Handler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.answer(HTTPStatus.NOT_FOUND, b"", {})
                return
            self.answer(HTTPStatus.OK, text(), _TYPE)

    return HttpServer(listen(host, port), MetricsHandler)
