"""Names under which overlayfs looks for the data of a flattened image's files.

Owns: their form, on both sides: what is written into an image as a file's redirect, and what is understood
when the kernel asks the fetch trigger for it. Must not know: images, triggers, caches.

A redirect begins with the repository, since a chain may have layers of several. An object that is a whole
file has its digest as its name, so equal files are one file here; the uncompressed size and how it is stored
are what fetching needs besides. A file in chunks, or on external servers, is no object of its own: it is
known by its inode, and by the catalog that gave it, lest an inode should mean another file some day.
"""

import re
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["INODES", "InodeName", "StoredObject", "redirect_to"]

INODES = b"inodes"
"""The directory of files that are known by their inodes; objects lie in directories of two digits."""

_OBJECT = re.compile(rb"([0-9a-f]{38}(?:-[a-z0-9]{1,16})?)\.([0-9a-f]{1,16})([zn])")
_INODE = re.compile(rb"([0-9]{1,19})\.([0-9a-f]{40}(?:-[a-z0-9]{1,16})?)")
_LETTERS = {Compression.ZLIB: b"z", Compression.NONE: b"n"}
_STORED = {letter: compression for compression, letter in _LETTERS.items()}


class StoredObject(NamedTuple):
    """A whole object: ``size`` is in bytes, uncompressed."""

    digest: Digest
    size: int
    compression: Compression

    @property
    def directory(self) -> bytes:
        return self.digest.text[:2].encode()

    @property
    def name(self) -> bytes:
        """Its name in ``directory``."""
        return b"%b.%x%b" % (self.digest.text[2:].encode(), self.size, _LETTERS[self.compression])

    @property
    def path(self) -> bytes:
        return self.directory + b"/" + self.name

    @classmethod
    def parse(cls, directory: bytes, name: bytes) -> Self | None:
        """What is meant by a name in a directory; None if it is no such name."""
        match = _OBJECT.fullmatch(name)
        if match is None:
            return None
        try:
            digest = Digest.parse((directory + match[1]).decode())
        except FormatError:
            return None
        return cls(digest, int(match[2], 16), _STORED[match[3]])


class InodeName(NamedTuple):
    """A file known by its inode in the catalog with this digest."""

    inode: int
    catalog: Digest

    @property
    def path(self) -> bytes:
        return b"%b/%d.%b" % (INODES, self.inode, self.catalog.text.encode())

    @classmethod
    def parse(cls, name: bytes) -> Self | None:
        """What is meant by a name in the directory ``INODES``; None if it is no such name."""
        match = _INODE.fullmatch(name)
        if match is None:
            return None
        try:
            return cls(int(match[1]), Digest.parse(match[2].decode()))
        except FormatError:
            return None


def redirect_to(fqrn: str, path: bytes) -> bytes:
    """What an image says of a file's data that is at ``path`` of a repository."""
    return b"/%b/%b" % (fqrn.encode(), path)
