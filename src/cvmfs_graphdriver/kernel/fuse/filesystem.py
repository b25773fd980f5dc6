"""The interface of a read-only file system that ``Server`` can serve.

Owns: the operations, one method each. Must not know: threads, the device, who implements it.

Several threads call the methods at the same time. An operation fails by raising RefusalError with the error
number for the caller of the system call. RefusalError is not an OSError, so that a file missing in some cache
cannot look like a file missing in the tree. Replies that the kernel caches are bytes packed by ``wire``, so
that an implementation can keep them ready; everything else is plain values.

Opening needs no messages: the first OPEN and OPENDIR tell the kernel not to ask again. Files and directories
are identified by their node alone, so a newly started server can go on.
"""

import os
from collections.abc import Iterable
from typing import Protocol

from cvmfs_graphdriver.kernel.fuse.wire import StatFs

__all__ = ["Filesystem", "RefusalError"]


class RefusalError(Exception):
    """A request is answered with this error number of errno(3)."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Filesystem(Protocol):
    """A read-only tree. The root is ``wire.ROOT_NODE``; ``lookup`` gives all other nodes."""

    def lookup(self, parent: int, name: bytes) -> bytes:
        """What ``name`` in the directory ``parent`` is: ``wire.entry`` or ``wire.no_entry``.

        The kernel asks for ``.`` and ``..`` if it has a node's number but no path to it.
        """
        ...

    def getattr(self, node: int) -> bytes:
        """The attributes of a node: ``wire.attributes_reply``."""
        ...

    def readlink(self, node: int) -> bytes:
        """The target of a symbolic link."""
        ...

    def read(self, node: int, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with a file's bytes from ``offset`` on; returns how many, fewer only at the end."""
        ...

    def readdir(self, node: int, offset: int, size: int) -> bytes:
        """At most ``size`` bytes of whole ``wire.directory_entry``; empty at the end.

        ``offset`` is 0 or the ``following`` of the last entry that the reader got.
        """
        ...

    def readdirplus(self, node: int, offset: int, size: int) -> bytes:
        """As ``readdir``, of whole ``wire.directory_entry_plus``."""
        ...

    def getxattr(self, node: int, name: bytes, gid: int) -> bytes:
        """The value of an extended attribute for a caller of group ``gid``; ENODATA if there is none."""
        ...

    def listxattr(self, node: int) -> Iterable[bytes]:
        """The names of the extended attributes."""
        ...

    def statfs(self) -> StatFs:
        """Totals of the file system."""
        ...

    def failed(self, node: int, error: Exception) -> None:
        """An operation on a node raised ``error``, which is not a RefusalError; its caller gets EIO."""
        ...
