"""One attempt to fetch something with libcurl: the request, and what the answer means.

Owns: a curl handle that keeps its connections alive, timeouts, request headers, and the meaning of libcurl's
errors (CernVM-FS format reference, sections 8.2 and 8.3; libcurl-errors(3)). Must not know: which server
comes next, what the bytes are; a ``Sink`` takes them.
"""

import io
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import pycurl

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.network.failover import Attempt, Failure, classify_status
from cvmfs_graphdriver.client.network.proxies import DIRECT, Proxy
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["CurlConnection", "Problem", "Sink"]

_BUFFER = 512 * 1024
_REDIRECTS = 4
_LONGEST = 2**31 - 1
_FIRST_ERROR = 400
_SYSTEM_AUTHORITIES = (  # of Debian, Alpine and Arch; Red Hat; SUSE
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
)

_RESOLVE_PROXY = pycurl.E_COULDNT_RESOLVE_PROXY
_RESOLVE_HOST = pycurl.E_COULDNT_RESOLVE_HOST
_SLOW = pycurl.E_OPERATION_TIMEDOUT
_NO_FILE = pycurl.E_FILE_COULDNT_READ_FILE
_SHORT = frozenset({pycurl.E_PARTIAL_FILE, pycurl.E_GOT_NOTHING, pycurl.E_RECV_ERROR})
_PROXY_OR_HOST = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_SEND_ERROR, _SLOW}) | _SHORT


class Sink(Protocol):
    """Where received bytes go. Each attempt of a transfer starts with ``begin``."""

    @property
    def most(self) -> int:
        """The most bytes that it takes."""

    def begin(self) -> None:
        """Forget the bytes received so far."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises RepositoryError: they cannot be right."""

    def finish(self) -> None:
        """All bytes have been received. Raises RepositoryError: they are not right."""


class Problem(NamedTuple):
    """Why an attempt failed. ``missing``: the server has no such object. ``error``: what the sink raised."""

    failure: Failure
    detail: str
    missing: bool = False
    error: RepositoryError | None = None


class CurlConnection:
    """A curl handle, with the options common to all its requests already set; for one thread at a time.

    ``identifier`` distinguishes this client from others.
    """

    def __init__(self, settings: NetworkSettings, identifier: str = "") -> None:
        self._settings = settings
        self._sink: Sink | None = None
        self._error: CvmfsGraphdriverError | None = None
        self._head = io.BytesIO()
        self._standing: object = None
        self.received = 0
        """Bytes that the last request brought."""
        self._curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FAILONERROR, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS | pycurl.PROTO_FILE)
        curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, settings.follow_redirects)
        curl.setopt(pycurl.MAXREDIRS, _REDIRECTS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, settings.low_speed_limit)
        curl.setopt(pycurl.USERAGENT, f"cvmfs graphdriver {__version__} {identifier}".strip())
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._head.write)  # quicker than a function of our own
        if found := next((path for path in _SYSTEM_AUTHORITIES if path.exists()), None):
            curl.setopt(pycurl.CAINFO, str(found))

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._curl.close()

    @property
    def handle(self) -> pycurl.Curl:
        """The handle, for callers that make a prepared request by themselves instead of calling ``run``."""
        return self._curl

    def prepare(
        self, attempt: Attempt, path: str, sink: Sink, span: tuple[int, int] | None, timeout: float
    ) -> None:
        """Set the options of one request.

        ``span`` asks for the bytes from one offset up to, but not including, another; ``timeout`` in seconds
        is for connecting and for waiting for data. In all, the request may last as much longer as the most
        bytes that the sink takes need at the lowest speed.
        """
        curl = self._curl
        curl.setopt(pycurl.URL, f"{attempt.host}/{path}")
        standing = (attempt.proxy, timeout, span, self._headers(path, no_cache=attempt.no_cache))
        if standing != self._standing:
            self._set(*standing)
            self._standing = standing
        # The low-speed limit alone does not end a transfer that is slow again and again, or never is done.
        total = timeout + sink.most / max(1, self._settings.low_speed_limit)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, min(int(total * 1000), _LONGEST)))
        self._sink, self._error, self.received = sink, None, 0
        self._head.seek(0)
        self._head.truncate()

    def run(self) -> tuple[int, str]:
        """Make the request; returns libcurl's error number, 0 for none, and text."""
        try:
            self._curl.perform()
        except pycurl.error as error:
            return error.args[0], error.args[1]
        return 0, ""

    def conclude(self, attempt: Attempt, sink: Sink, number: int, text: str) -> Problem | None:
        """The outcome of the request: None if the sink has taken all of it.

        Raises the sink's errors that are not about the bytes, for instance that the disk is full.
        """
        problem = self._judge(number, text, direct=attempt.proxy == DIRECT)
        if problem is not None:
            return problem
        try:
            if self._error is not None:
                raise self._error
            sink.finish()
        except RepositoryError as error:
            return Problem(Failure.BAD_DATA, str(error), error=error)
        return None

    def _set(self, proxy: Proxy, timeout: float, span: tuple[int, int] | None, headers: list[str]) -> None:
        """Set the options that are usually the same for many requests."""
        curl = self._curl
        curl.setopt(pycurl.PROXY, "" if proxy == DIRECT else proxy.url)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(timeout * 1000)))
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, int(timeout)))
        curl.setopt(pycurl.HTTPHEADER, headers)
        if span is None:
            curl.unsetopt(pycurl.RANGE)
        else:
            curl.setopt(pycurl.RANGE, f"{span[0]}-{span[1] - 1}")

    def _judge(self, number: int, text: str, *, direct: bool) -> Problem | None:
        """What went wrong in transit, None if nothing did; the sink may still refuse the bytes."""
        status = self._curl.getinfo(pycurl.RESPONSE_CODE)
        if status:
            failure = classify_status(
                status,
                direct=direct,
                redirects=self._settings.follow_redirects,
                proxy_error=status >= _FIRST_ERROR and _is_from_proxy(self._head.getvalue()),
            )
            if failure is not None:
                missing = status == 404 and failure is Failure.HOST_HTTP
                return Problem(failure, f"{failure.value}, status {status}", missing)
        if number and self._error is None:
            failure = _classify_error(number, direct=direct)
            return Problem(failure, f"{failure.value} ({text})", number == _NO_FILE)
        return None

    def _headers(self, path: str, *, no_cache: bool) -> list[str]:
        headers = ["Pragma: no-cache", "Cache-Control: no-cache"] if no_cache else ["Pragma:"]
        if self._settings.send_info_header:
            headers.append(f"cvmfs-info: {path}")
        if self._settings.http_tracing:
            headers += [f"X-CVMFS-PID: {os.getpid()}", f"X-CVMFS-UID: {os.getuid()}"]
            headers += [f"X-CVMFS-GID: {os.getgid()}", *self._settings.http_tracing_headers]
        return headers

    # Called by libcurl, which would only print an exception: it is kept for ``conclude``.

    def _write(self, data: bytes) -> int:
        assert self._sink is not None  # noqa: S101 - set before libcurl runs
        try:
            self._sink.write(data)
        except CvmfsGraphdriverError as error:
            self._error = error
            return 0
        self.received += len(data)
        return len(data)


def _is_from_proxy(head: bytes) -> bool:
    """Whether the head of an answer says that it reports a proxy's own error."""
    for line in head.lower().splitlines():
        name, _, value = line.partition(b":")
        if name == b"x-squid-error" or (name == b"proxy-status" and b"error=" in value):
            return True
    return False


def _classify_error(number: int, *, direct: bool) -> Failure:
    if number == _RESOLVE_PROXY:
        return Failure.PROXY_RESOLVE
    if number == _RESOLVE_HOST:
        return Failure.HOST_RESOLVE
    if number == _NO_FILE:
        return Failure.HOST_HTTP
    if direct or number not in _PROXY_OR_HOST:
        if number == _SLOW:
            return Failure.HOST_TOO_SLOW
        return Failure.HOST_SHORT if number in _SHORT else Failure.HOST_CONNECTION
    if number == _SLOW:
        return Failure.PROXY_TOO_SLOW
    return Failure.PROXY_SHORT if number in _SHORT else Failure.PROXY_CONNECTION
