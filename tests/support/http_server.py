"""Web servers in threads of the test's own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

__all__ = ["QuietServer", "in_thread"]


class QuietServer(ThreadingHTTPServer):
    """On loopback; that clients hang up is part of the tests."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def in_thread(server: QuietServer) -> Iterator[None]:
    """It serves until the end of the block, and is closed then."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
