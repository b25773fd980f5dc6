"""What a read-only file system must answer so that ``Server`` can serve it.

Owns: the interface, one method per operation. Must not know: threads, the device, who implements it.

Methods are called by several threads at once. An operation fails by raising RefusalError with the number
that the caller of the system call shall see; that is no OSError, lest a file missing in some cache should
look like a file missing in the tree. Replies that the kernel caches are bytes that ``wire`` has packed, so
that an implementation can keep them ready; everything else is plain values.

Opening is free of messages: the kernel is told at the first OPEN and OPENDIR that it need not ask, so files
and directories are known by their node alone, and a server that was started anew can go on.
"""

import os
from collections.abc import Iterable
from typing import Protocol

from cvmfs_graphdriver.kernel.fuse.wire import StatFs

__all__ = ["Filesystem", "RefusalError"]


class RefusalError(Exception):
    """The answer to a request is this error number of errno(3)."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Filesystem(Protocol):
    """A read-only tree. The root is ``wire.ROOT_NODE``; all other nodes are named by ``lookup``."""

    def lookup(self, parent: int, name: bytes) -> bytes:
        """What ``name`` in the directory ``parent`` is: ``wire.entry`` or ``wire.no_entry``.

        ``.`` and ``..`` are asked for when the kernel has a node's number but no path to it.
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

        ``offset`` is 0 or the ``following`` of the entry that the reader had last.
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
        """The size of the whole."""
        ...

    def failed(self, error: Exception) -> None:
        """An operation raised ``error``, which is no RefusalError; its caller gets EIO."""
        ...
