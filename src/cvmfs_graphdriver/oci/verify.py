"""Believing a stream only when it has proved itself: size and digest checked while it passes.

Owns: the check. Must not know: where the bytes come from. A consumer that reads to the end has verified
bytes; one that stops earlier has not, and must not act on them.
"""

from typing import Protocol

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ContentMismatchError

__all__ = ["ByteSource", "DigestReader", "Verifier", "read_to_end"]


class ByteSource(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes and at least one, or ``b""`` at the end."""
        ...


class Verifier:
    """The running check of bytes against their digest and, where it is known, their size."""

    def __init__(self, name: str, digest: ContentDigest, size: int | None) -> None:
        """Expect ``size`` bytes of this digest; ``name`` says in errors what they are."""
        self.passed = 0
        self._name = name
        self._digest = digest
        self._size = size
        self._hasher = digest.hasher()

    def update(self, data: bytes) -> None:
        """Take the next bytes.

        Raises ContentMismatchError: more than there should be.
        """
        self.passed += len(data)
        if self._size is not None and self.passed > self._size:
            raise ContentMismatchError(f"{self._name} is longer than the {self._size} bytes announced")
        self._hasher.update(data)

    def finish(self) -> None:
        """Take the end.

        Raises ContentMismatchError: too few bytes, or others than those of the digest.
        """
        if self._size is not None and self.passed != self._size:
            raise ContentMismatchError(
                f"{self._name} ended after {self.passed} bytes, {self._size} were announced"
            )
        found = self._hasher.hexdigest()
        if found != self._digest.hex:
            raise ContentMismatchError(
                f"{self._name} is not what it should be: its digest is {self._digest.algorithm}:{found}, "
                f"expected {self._digest}"
            )


class DigestReader:
    """A source of which every byte passes a verifier; its end is believed only after the verdict."""

    def __init__(self, source: ByteSource, verifier: Verifier) -> None:
        self._source = source
        self._verifier = verifier

    def read(self, size: int, /) -> bytes:
        """The next bytes; raises ContentMismatchError instead of the end that would be a lie."""
        data = self._source.read(size)
        if data:
            self._verifier.update(data)
        else:
            self._verifier.finish()
        return data


def read_to_end(source: ByteSource, block: int = 1 << 20) -> bytes:
    """All bytes of a source whose length its own verification bounds."""
    return b"".join(iter(lambda: source.read(block), b""))
