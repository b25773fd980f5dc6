"""A blob streamed from a registry: verified on the way, resumed after a broken connection.

Owns: the count of bytes, resumption by Range (RFC 9110, section 14), verification at the end. Must not know:
how a request is authorised; the caller provides a function that opens the blob at an offset.
"""

import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

from urllib3.exceptions import HTTPError

from cvmfs_graphdriver.oci.errors import RegistryReplyError, RegistryUnreachableError
from cvmfs_graphdriver.oci.image.model import ContentDescriptor
from cvmfs_graphdriver.oci.registry.transport import Reply, TransportSettings
from cvmfs_graphdriver.oci.verify import Verifier

__all__ = ["BlobStream"]

_RANGE = re.compile(r"bytes (\d+)-", re.ASCII)


class BlobStream:
    """The bytes of a blob; the end is reported only once size and digest are verified."""

    def __init__(
        self,
        name: str,
        descriptor: ContentDescriptor,
        open_at: Callable[[int], Reply],
        settings: TransportSettings,
    ) -> None:
        """Read the blob that ``open_at(offset)`` answers with status 200 (all of it) or 206 (from there)."""
        self._name = name
        self._open_at = open_at
        self._settings = settings
        self._verifier = Verifier(name, descriptor.digest, descriptor.size)
        self._size = descriptor.size
        self._failures = 0
        self._reply: Reply | None = None
        self._skip = 0

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the verified end.

        Raises ContentMismatchError: it is not the requested blob. RegistryUnreachableError: the connection
        breaks repeatedly without any progress. Whatever opening the blob raises.
        """
        while True:
            reply = self._reply or self._open()
            # One byte more than is due, to detect a blob that is too long.
            due = self._skip or self._size - self._verifier.passed + 1
            try:
                data = reply.response.read(min(size, due))
            except HTTPError as error:
                self._break_off(error)
                continue
            if self._skip and data:
                self._skip -= len(data)
            elif data:
                self._failures = 0
                self._verifier.update(data)
                return data
            else:
                self._verifier.finish()
                return b""

    def close(self) -> None:
        """Close the connection."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Reply:
        """Open the blob where it broke off; if the server does not support ranges, skip the start."""
        passed = self._verifier.passed
        reply = self._open_at(passed)
        found = _RANGE.match(reply.header("Content-Range"))
        if reply.status == 206 and (found is None or int(found[1]) != passed):
            reply.close()
            raise RegistryReplyError(
                f"{self._name}: the registry sent other bytes than those requested from {passed} on"
            )
        self._skip = passed if reply.status == 200 else 0
        self._reply = reply
        return reply

    def _break_off(self, error: HTTPError) -> None:
        self.close()
        self._failures += 1
        if self._failures >= self._settings.attempts:
            raise RegistryUnreachableError(
                f"{self._name} broke off {self._failures} times after {self._verifier.passed} of "
                f"{self._size} bytes ({error}); check the network and try again"
            ) from error
        self._settings.pause(self._failures)
