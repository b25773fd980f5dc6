"""A file system that answers every request with an I/O error, served while nothing else can be.

Owns: that answer. Must not know: the reason. Readers learn that a file is not available now, and the kernel
caches none of it.
"""

import errno
from collections.abc import Iterable
from typing import NoReturn

from cvmfs_graphdriver.kernel.fuse.filesystem import RefusalError
from cvmfs_graphdriver.kernel.fuse.wire import StatFs

__all__ = ["Refusing"]


class Refusing:
    """Implements ``Filesystem``: each operation fails with EIO."""

    def lookup(self, parent: int, name: bytes) -> bytes:
        self._refuse(parent, name)

    def getattr(self, node: int) -> bytes:
        self._refuse(node)

    def readlink(self, node: int) -> bytes:
        self._refuse(node)

    def read(self, node: int, offset: int, buffer: memoryview) -> int:
        self._refuse(node, offset, buffer)

    def readdir(self, node: int, offset: int, size: int) -> bytes:
        self._refuse(node, offset, size)

    def readdirplus(self, node: int, offset: int, size: int) -> bytes:
        self._refuse(node, offset, size)

    def getxattr(self, node: int, name: bytes, gid: int) -> bytes:
        self._refuse(node, name, gid)

    def listxattr(self, node: int) -> Iterable[bytes]:
        self._refuse(node)

    def statfs(self) -> StatFs:
        self._refuse()

    def failed(self, node: int, error: Exception) -> None:
        del node, error  # nobody needs to know

    @staticmethod
    def _refuse(*_: object) -> NoReturn:
        raise RefusalError(errno.EIO)
