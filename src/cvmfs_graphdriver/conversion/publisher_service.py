"""The publisher service: publishes uploaded layers, and tells over HTTP what became of them.

Owns: when to look into the bucket – now and then, and whenever somebody POSTs, as MinIO's notifications of
buckets do – and ``GET /status/<sha256>`` (format reference, section 18.4). What is POSTed is read by nobody:
the bucket says what is there. Must not know: how a layer is published.
"""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from cvmfs_graphdriver.conversion.uploads import LayerUploads
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.http.server import Handler, Server, listen, running
from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["PublisherService", "running_service"]

_log = logging.getLogger(__name__)

_STATUS: Final = "/status/"
_BODY_LIMIT: Final = 1 << 20


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


class _Handler(Handler):
    server: "_Server"
    timeout = 15.0

    def do_GET(self) -> None:
        if not self.path.startswith(_STATUS):
            self._answer_text(HTTPStatus.NOT_FOUND, "there is only /status/<sha256>")
            return
        try:
            status = self.server.service.uploads.status(self.path.removeprefix(_STATUS))
        except CvmfsGraphdriverError as error:
            self._answer_text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._answer_text(HTTPStatus.OK, status)

    def do_POST(self) -> None:
        length = self.content_length(_BODY_LIMIT)
        if length is None:
            self._answer_text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a notification is not that long")
            return
        self.rfile.read(length)
        self.server.service.wake()
        self._answer_text(HTTPStatus.OK, "")

    def _answer_text(self, status: HTTPStatus, text: str) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        self.answer(status, text.encode(), headers)


class _Server(Server):
    def __init__(self, listener: socket.socket, service: PublisherService) -> None:
        self.service = service
        super().__init__(listener, _Handler)


@contextmanager
def running_service(service: PublisherService, host: str, port: int) -> Iterator[str]:
    """Run the service until the block ends; gives its URL. Raises StorageError: the address is taken."""
    try:
        server = _Server(listen(host, port), service)
    except OSError as error:
        raise StorageError(f"cannot listen at {host}:{port}: {error.strerror}") from error
    publishing = threading.Thread(target=service.run, name="publisher")
    publishing.start()
    try:
        with running(server):
            yield f"http://{host}:{server.port}"
    finally:
        service.stop()
        publishing.join()
