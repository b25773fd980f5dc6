"""Verifying the size and digest of a stream while it is read.

Owns: the verification. Must not know: where the bytes come from. A consumer that reads to the end has
verified bytes; one that stops earlier has not, and must not act on them.
"""

from typing import Protocol

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ContentMismatchError

__all__ = ["ByteSource", "DigestReader", "Verifier", "read_to_end"]


class ByteSource(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At least one and at most ``size`` bytes, or ``b""`` at the end."""
        ...


class Verifier:
    """Checks bytes against their digest and, if known, their size as they arrive."""

    def __init__(self, name: str, digest: ContentDigest, size: int | None) -> None:
        """Expect ``size`` bytes with this digest; ``name`` says in errors what they are."""
        self.passed = 0
        self._name = name
        self._digest = digest
        self._size = size
        self._hasher = digest.hasher()

    def update(self, data: bytes) -> None:
        """Take the next bytes.

        Raises ContentMismatchError: more than expected.
        """
        self.passed += len(data)
        if self._size is not None and self.passed > self._size:
            raise ContentMismatchError(f"{self._name} is longer than the announced {self._size} bytes")
        self._hasher.update(data)

    def finish(self) -> None:
        """Take the end.

        Raises ContentMismatchError: too few bytes, or the digest does not match.
        """
        if self._size is not None and self.passed != self._size:
            raise ContentMismatchError(
                f"{self._name} ended after {self.passed} of the announced {self._size} bytes"
            )
        found = self._hasher.hexdigest()
        if found != self._digest.hex:
            raise ContentMismatchError(
                f"{self._name} does not match its digest: it has {self._digest.algorithm}:{found}, "
                f"expected {self._digest}"
            )


class DigestReader:
    """A source whose bytes all pass a verifier; its end is reported only once they are verified."""

    def __init__(self, source: ByteSource, verifier: Verifier) -> None:
        self._source = source
        self._verifier = verifier

    def read(self, size: int, /) -> bytes:
        """The next bytes; at the end raises ContentMismatchError if they are not the right ones."""
        data = self._source.read(size)
        if data:
            self._verifier.update(data)
        else:
            self._verifier.finish()
        return data


def read_to_end(source: ByteSource, block: int = 1 << 20) -> bytes:
    """All bytes of a source, whose own verification bounds their number."""
    return b"".join(iter(lambda: source.read(block), b""))
