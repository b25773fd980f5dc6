"""Names under which overlayfs looks for the data of a flattened image's files.

Owns: their form, both in an image, as a file's redirect, and in requests to the fetch trigger. Must not know:
images, triggers, caches.

A redirect begins with the repository, because a chain may have layers from several. An object that is a whole
file is named by its digest, so identical files are one file here, and by its uncompressed size and
compression, which fetching needs. A file in chunks, or on external servers, is not an object: it is
identified by its inode and the catalog that it comes from, in case the inode should ever mean another file.
"""

import re
from typing import NamedTuple, Self

from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["INODES", "InodeName", "StoredObject", "redirect_to"]

INODES = b"inodes"
"""The directory of files identified by inodes; objects are in directories named by two digits."""

_OBJECT = re.compile(rb"([0-9a-f]{38}(?:-[a-z0-9]{1,16})?)\.([0-9a-f]{1,16})([zn])")
_INODE = re.compile(rb"([0-9]{1,19})\.([0-9a-f]{40}(?:-[a-z0-9]{1,16})?)")
_LETTERS = {Compression.ZLIB: b"z", Compression.NONE: b"n"}
_STORED = {letter: compression for compression, letter in _LETTERS.items()}


class StoredObject(NamedTuple):
    """A whole object; ``size`` is its uncompressed size in bytes."""

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
        """The object with this name in a directory; None if the name is not one of an object."""
        match = _OBJECT.fullmatch(name)
        if match is None:
            return None
        try:
            digest = Digest.parse((directory + match[1]).decode())
        except FormatError:
            return None
        return cls(digest, int(match[2], 16), _STORED[match[3]])


class InodeName(NamedTuple):
    """A file identified by its inode in the catalog with this digest."""

    inode: int
    catalog: Digest

    @property
    def path(self) -> bytes:
        return b"%b/%d.%b" % (INODES, self.inode, self.catalog.text.encode())

    @classmethod
    def parse(cls, name: bytes) -> Self | None:
        """The file with this name in the directory ``INODES``; None if the name is not valid."""
        match = _INODE.fullmatch(name)
        if match is None:
            return None
        try:
            return cls(int(match[1]), Digest.parse(match[2].decode()))
        except FormatError:
            return None


def redirect_to(fqrn: str, path: bytes) -> bytes:
    """The redirect in an image to a file's data at ``path`` of a repository."""
    return b"/%b/%b" % (fqrn.encode(), path)
