"""The publisher service: publishes uploaded layers, and tells over HTTP what became of them.

Owns: when to look into the bucket – now and then, and whenever somebody POSTs, as MinIO's notifications of
buckets do – and ``GET /status/<sha256>`` (format reference, section 18.4). What is POSTed is read by nobody:
the bucket says what is there. Must not know: how a layer is published.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from cvmfs_graphdriver.conversion.uploads import LayerUploads
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["PublisherService", "running_service"]

_log = logging.getLogger(__name__)

_STATUS: Final = "/status/"
_BODY_LIMIT: Final = 1 << 20
_MOST_REQUESTS: Final = 64
_PATIENCE: Final = 15.0
"""Seconds that a client may take for a request."""


class PublisherService:
    """Looks for uploads every ``interval`` seconds, and when it is told that there is one."""

    def __init__(self, uploads: LayerUploads, *, interval: float) -> None:
        self.uploads = uploads
        self._interval = interval
        self._wake = threading.Event()
        self._end = False

    def wake(self) -> None:
        """Look for uploads now."""
        self._wake.set()

    def stop(self) -> None:
        """Make ``run`` end, once what is being published is."""
        self._end = True
        self._wake.set()

    def run(self) -> None:
        """Publish until ``stop``. What fails is tried again, for that is why there is a service."""
        while not self._end:
            self._wake.clear()
            try:
                self.uploads.publish()
            except CvmfsGraphdriverError as error:
                _log.warning("cannot publish now: %s", error)
            self._wake.wait(self._interval)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    server_version = "cvmfs-graphdriver"
    sys_version = ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        if not self.path.startswith(_STATUS):
            self._answer(HTTPStatus.NOT_FOUND, "there is only /status/<sha256>")
            return
        try:
            status = self.server.service.uploads.status(self.path.removeprefix(_STATUS))
        except CvmfsGraphdriverError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._answer(HTTPStatus.OK, status)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _BODY_LIMIT:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a notification is not that long")
            return
        self.rfile.read(int(length))
        self.server.service.wake()
        self._answer(HTTPStatus.OK, "")

    def _answer(self, status: HTTPStatus, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], service: PublisherService) -> None:
        self.service = service
        self._places = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._places.acquire()  # whoever comes too many waits in the queue of the socket
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of the service's."""
        del request
        _log.debug("a request of %s broke off", client_address, exc_info=True)


@contextmanager
def running_service(service: PublisherService, host: str, port: int) -> Iterator[str]:
    """Run the service until the block ends; gives its URL. Raises StorageError: the address is taken."""
    try:
        server = _Server((host, port), service)
    except OSError as error:
        raise StorageError(f"cannot listen at {host}:{port}: {error.strerror}") from error
    threads = [
        threading.Thread(target=service.run, name="publisher"),
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        service.stop()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()
