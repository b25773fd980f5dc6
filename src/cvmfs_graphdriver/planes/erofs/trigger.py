"""The fetch trigger: directories in a mounted repository where looking up a file fetches it.

Owns: the directories below ``.cvmfs-data`` of a repository that is mounted for the EROFS plane. All other
nodes belong to the tree. Must not know: overlayfs mounts, images, the wire format.

``fetch/<repository>/<2 digits>/<name>``: a LOOKUP waits until the object is in the cache and linked to where
overlayfs searches next (``links``), and is answered with an ENOENT that is not cached. So OPEN and READ never
reach this process. ``fetch/<repository>/inodes/<name>`` is a file in chunks: the answer is the tree's own
node, and its READs are served piece by piece. ``fail``: every LOOKUP is answered with EIO, so that a file
that could not be fetched never looks like one that does not exist.
"""

import errno
import stat
from collections.abc import Callable, Iterable

from cvmfs_graphdriver.client.errors import StaleInodeError
from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.fuse.filesystem import Filesystem, RefusalError
from cvmfs_graphdriver.kernel.fuse.wire import ROOT_NODE, Attributes, StatFs
from cvmfs_graphdriver.planes.erofs.objectnames import INODES, InodeName, StoredObject
from cvmfs_graphdriver.repository.errors import RepositoryError

__all__ = ["CATALOG_XATTR", "DATA", "FAIL", "FETCH", "TriggerFilesystem"]

DATA, FETCH, FAIL = b".cvmfs-data", b"fetch", b"fail"

CATALOG_XATTR = b"trusted.overlay.cvmfs-catalog"
"""Of a directory: digest, inode offset and mountpoint of the catalog that lists it, one per line.

Overlayfs hides attributes in this namespace, so containers do not see it.
"""

_OURS = 1 << 62
"""Greater than any inode of a tree."""
_TOP, _FETCH, _FAIL, _REPOSITORY, _INODES = (_OURS + number for number in range(5))
_SHARD = _OURS + 0x100
_SHARDS = {b"%02x" % number: _SHARD + number for number in range(0x100)}


class TriggerFilesystem:
    """A tree, ``inner``, and the trigger. Implements ``kernel.fuse.filesystem.Filesystem``.

    ``fetch`` makes an object available to overlayfs, or raises; ``node`` returns the tree's node for an
    inode; ``describe`` returns the value of ``CATALOG_XATTR`` for a node.
    """

    def __init__(
        self,
        inner: Filesystem,
        fqrn: str,
        fetch: Callable[[StoredObject], None],
        node: Callable[[int], Node],
        describe: Callable[[Node], bytes],
    ) -> None:
        self._inner = inner
        self._fetch = fetch
        self._node = node
        self._describe = describe
        self._directories: dict[int, dict[bytes, int]] = {
            _TOP: {FETCH: _FETCH, FAIL: _FAIL},
            _FETCH: {fqrn.encode(): _REPOSITORY},
            _REPOSITORY: {INODES: _INODES, **_SHARDS},
        }

    def lookup(self, parent: int, name: bytes) -> bytes:
        """What ``name`` in the directory ``parent`` is."""
        if parent < _OURS:
            if parent == ROOT_NODE and name == DATA:
                return _directory(_TOP)
            return self._inner.lookup(parent, name)
        if parent == _FAIL:
            raise RefusalError(errno.EIO)
        if parent == _INODES:
            return self._chunked(name)
        if parent >= _SHARD:
            wanted = StoredObject.parse(b"%02x" % (parent - _SHARD), name)
            if wanted is not None:
                self._fetch(wanted)
            raise RefusalError(errno.ENOENT)
        found = self._directories[parent].get(name)
        if found is None:
            raise RefusalError(errno.ENOENT)
        return _directory(found)

    def _chunked(self, name: bytes) -> bytes:
        """The entry of a file that is identified by its inode."""
        asked = InodeName.parse(name)
        if asked is None:
            raise RefusalError(errno.ENOENT)
        try:
            node = self._node(asked.inode)
        except StaleInodeError:
            raise RefusalError(errno.EIO) from None
        if node.mount.digest != asked.catalog or not node.entry.is_regular:
            raise RepositoryError(f"inode {asked.inode} is not a file of catalog {asked.catalog}")
        return wire.entry(asked.inode, wire.attributes_in(self._inner.getattr(asked.inode)))

    def getattr(self, node: int) -> bytes:
        """The attributes of a node."""
        return self._inner.getattr(node) if node < _OURS else wire.attributes_reply(_attributes(node))

    def readlink(self, node: int) -> bytes:
        """The target of a symbolic link."""
        return self._inner.readlink(node)

    def read(self, node: int, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with a file's bytes."""
        return self._inner.read(node, offset, buffer)

    def readdir(self, node: int, offset: int, size: int) -> bytes:
        """Entries of a directory; the trigger's are not listed."""
        return self._inner.readdir(node, offset, size) if node < _OURS else b""

    def readdirplus(self, node: int, offset: int, size: int) -> bytes:
        """The same with attributes."""
        return self._inner.readdirplus(node, offset, size) if node < _OURS else b""

    def getxattr(self, node: int, name: bytes, gid: int) -> bytes:
        """The value of an extended attribute."""
        if node >= _OURS:
            raise RefusalError(errno.ENODATA)
        if name != CATALOG_XATTR:
            return self._inner.getxattr(node, name, gid)
        try:
            return self._describe(self._node(node))
        except StaleInodeError:
            raise RefusalError(errno.ESTALE) from None

    def listxattr(self, node: int) -> Iterable[bytes]:
        """The names of the extended attributes."""
        return self._inner.listxattr(node) if node < _OURS else ()

    def statfs(self) -> StatFs:
        """Totals of the file system."""
        return self._inner.statfs()

    def failed(self, node: int, error: Exception) -> None:
        """Count and log what made an operation fail."""
        self._inner.failed(node, error)


def _attributes(node: int) -> bytes:
    return Attributes(node, stat.S_IFDIR | 0o500, links=2).pack()


def _directory(node: int) -> bytes:
    return wire.entry(node, _attributes(node))
