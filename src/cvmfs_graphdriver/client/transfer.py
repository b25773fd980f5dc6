"""HTTP with libcurl: fetch one URL path from whichever server delivers it.

Owns: curl handles (up to 16 at once, each keeping its connection alive), time and size limits, headers
(CernVM-FS format reference, sections 8.3 and 8.5). Must not know: caches, catalogs, trust; what is received
goes piecewise into a ``Sink``, which says at the end whether it was right.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import pycurl

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.client.errors import NotFoundError, UnreachableError
from cvmfs_graphdriver.client.settings import NetworkSettings
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["Memory", "Sink", "Transfer"]

_CONNECTIONS = 16
_BUFFER = 512 * 1024


class Sink(Protocol):
    """Where received bytes go. A transfer that is tried again starts with ``begin`` again."""

    def begin(self) -> None:
        """Forget what came so far."""

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises an error of ours if they cannot be right."""

    def finish(self) -> None:
        """All bytes came; raises an error of ours if they are not right."""


class Memory:
    """A sink in memory for small things, with an upper limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = io.BytesIO()

    def begin(self) -> None:
        self._buffer = io.BytesIO()

    def write(self, data: bytes) -> None:
        if self._buffer.tell() + len(data) > self._limit:
            raise UnreachableError(f"the server sends more than {self._limit} bytes")
        self._buffer.write(data)

    def finish(self) -> None:
        pass

    def getvalue(self) -> bytes:
        return self._buffer.getvalue()


class Transfer:
    """Fetches from the servers of one repository; safe for any number of threads."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self._idle: list[pycurl.Curl] = []
        self._lock = threading.Lock()

    def get(self, path: str, limit: int) -> bytes:
        """Fetch something small into memory: at most ``limit`` bytes."""
        sink = Memory(limit)
        self.fetch(path, sink)
        return sink.getvalue()

    def fetch(self, path: str, sink: Sink) -> None:
        """Fetch ``path`` below the servers' URLs into ``sink``.

        Raises NotFoundError: servers answer and none has it. UnreachableError: no server answers. What the
        sink raises, if no server has better bytes.
        """
        failures: list[CvmfsGraphdriverError] = []
        with self._handle() as curl:
            for server in self._settings.servers:
                try:
                    self._perform(curl, f"{server}/{path}", sink)
                except CvmfsGraphdriverError as error:
                    failures.append(error)
                else:
                    return
        raise failures[-1]

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            handles, self._idle = self._idle, []
        for curl in handles:
            curl.close()

    @contextmanager
    def _handle(self) -> Iterator[pycurl.Curl]:
        with self._slots:
            with self._lock:
                curl = self._idle.pop() if self._idle else pycurl.Curl()
            try:
                yield curl
            finally:
                with self._lock:
                    self._idle.append(curl)

    def _perform(self, curl: pycurl.Curl, url: str, sink: Sink) -> None:
        failure: list[CvmfsGraphdriverError] = []

        def write(data: bytes) -> int:
            try:
                sink.write(data)
            except CvmfsGraphdriverError as error:
                failure.append(error)
                return 0
            return len(data)

        sink.begin()
        timeout = self._settings.timeout_direct
        curl.reset()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FAILONERROR, 1)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(timeout * 1000))
        curl.setopt(pycurl.LOW_SPEED_TIME, int(timeout))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, self._settings.low_speed_limit)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.USERAGENT, f"cvmfs-graphdriver {__version__}")
        curl.setopt(pycurl.HTTPHEADER, ["Pragma:"])
        curl.setopt(pycurl.WRITEFUNCTION, write)
        try:
            curl.perform()
        except pycurl.error as error:
            if failure:
                raise failure[0] from None
            if curl.getinfo(pycurl.RESPONSE_CODE) == 404:
                raise NotFoundError(f"{url}: the server does not have it") from error
            raise UnreachableError(f"{url}: {error.args[1]}") from error
        sink.finish()
