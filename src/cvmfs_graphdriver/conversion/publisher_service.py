"""The publisher service: publishes uploaded layers, and reports their status over HTTP.

Owns: when to look into the bucket – at intervals, and after any POST request, such as MinIO's bucket
notifications – and ``GET /status/<sha256>`` (format reference, section 18.4). The content of a POST request
is ignored: the bucket is what counts. Who may send one: whoever has the token, or without a token, whoever is
on this machine. However many come, the bucket is listed once a second at most. Must not know: how a layer is
published.
"""

import hmac
import ipaddress
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from cvmfs_graphdriver.conversion.uploads import LayerUploads
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.http.server import Handler, HttpServer, listen, running
from cvmfs_graphdriver.publisher.errors import StorageError

__all__ = ["PublisherService", "running_service"]

_log = logging.getLogger(__name__)

_STATUS: Final = "/status/"
_BODY_LIMIT: Final = 1 << 20
_REST: Final = 1.0
"""Seconds between two looks into the bucket, if the interval is not shorter."""
_BEARER: Final = "Bearer "


class PublisherService:
    """Looks for uploads every ``interval`` seconds, and after ``wake``.

    ``token`` is the secret that permits POST requests; without one, only this machine may send them.
    """

    def __init__(self, uploads: LayerUploads, *, interval: float, token: str = "") -> None:
        self.uploads = uploads
        self._interval = interval
        self._token = token.encode()
        self._wake = threading.Event()
        self._end = threading.Event()

    def may_wake(self, authorization: str, host: str) -> bool:
        """Whether a request with this Authorization header from this address may wake the service."""
        if not self._token:
            return ipaddress.ip_address(host).is_loopback
        given = authorization.removeprefix(_BEARER).strip().encode()
        return authorization.startswith(_BEARER) and hmac.compare_digest(given, self._token)

    def wake(self) -> None:
        """Look for uploads soon."""
        self._wake.set()

    def stop(self) -> None:
        """Make ``run`` return after the publication in progress."""
        self._end.set()
        self._wake.set()

    def run(self) -> None:
        """Publish until ``stop``; failures are logged and retried."""
        rest = min(_REST, self._interval)
        while not self._end.is_set():
            self._wake.clear()
            try:
                self.uploads.publish()
            except CvmfsGraphdriverError as error:
                _log.warning("cannot publish, will try again: %s", error)
            self._end.wait(rest)
            self._wake.wait(self._interval - rest)


class _UploadHandler(Handler):
    timeout = 15.0
    body_limit = _BODY_LIMIT
    service: PublisherService

    def do_GET(self) -> None:
        if not self.path.startswith(_STATUS):
            self._answer_text(HTTPStatus.NOT_FOUND, "only /status/<sha256> exists")
            return
        try:
            status = self.service.uploads.status(self.path.removeprefix(_STATUS))
        except CvmfsGraphdriverError as error:
            self._answer_text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        else:
            self._answer_text(HTTPStatus.OK, status)

    def do_POST(self) -> None:
        if not self.service.may_wake(self.header("Authorization"), self.client):
            self._answer_text(HTTPStatus.FORBIDDEN, "POST requires the publisher's token")
            return
        self.service.wake()
        self._answer_text(HTTPStatus.OK, "")

    def _answer_text(self, status: HTTPStatus, text: str) -> None:
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        self.answer(status, text.encode(), headers)


@contextmanager
def running_service(service: PublisherService, host: str, port: int) -> Iterator[str]:
    """Run the service until the block ends; yields its URL. Raises StorageError: the address is in use."""
    handler = type("Handler", (_UploadHandler,), {"service": service})
    try:
        server = HttpServer(listen(host, port), handler)
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
