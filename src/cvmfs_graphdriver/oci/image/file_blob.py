"""A blob that is a file or part of one, verified while it is read like one from a registry.

Owns: opening and verification. Must not know: layouts and archives.
"""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cvmfs_graphdriver.oci.document import LIMIT
from cvmfs_graphdriver.oci.errors import ImageFormatError, ImageNotFoundError
from cvmfs_graphdriver.oci.image.model import ContentDescriptor
from cvmfs_graphdriver.oci.verify import Verifier

__all__ = ["FileBlob", "open_file", "read_small"]


def open_file(path: Path, what: str) -> BinaryIO:
    """Open a file of an image; raises ImageNotFoundError: it cannot be opened."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ImageNotFoundError(f"{what} is not available: cannot read {path}: {error.strerror}") from error


def read_small(path: Path, what: str) -> bytes:
    """A whole document; raises ImageNotFoundError, and ImageFormatError if it is too long."""
    with open_file(path, what) as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ImageFormatError(f"{what} exceeds the limit of {LIMIT} bytes")
    return data


class FileBlob:
    """The bytes of a blob in a file from ``offset`` on; the end is reported only once they are verified."""

    def __init__(self, name: str, path: Path, descriptor: ContentDescriptor, *, offset: int = 0) -> None:
        """Open ``path``; raises ImageNotFoundError."""
        self._verifier = Verifier(name, descriptor.digest, descriptor.size)
        self._size = descriptor.size
        self._file = open_file(path, name)
        self._file.seek(offset)

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the verified end; raises ContentMismatchError."""
        data = self._file.read(min(size, self._size - self._verifier.passed))
        if data:
            self._verifier.update(data)
        else:
            self._verifier.finish()
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
