"""A tree of a repository as a FUSE file system.

Owns: the answers to the kernel's requests, and how long the kernel may cache them. Must not know: the wire
format (``kernel.fuse`` packs and serves), the network, whiteouts.

A node's number is its inode, and an inode belongs to one catalog, which never changes. So the kernel may
cache what it knows of a node for ever, and a newly started server can answer for all nodes that its
predecessor gave out. One node is different: the root is always that of the newest revision. When a new
revision is mounted, the kernel is told to forget the root's attributes and listing. It caches the names in
the root for a second only, and is never told to forget a name: an overlay mount above would answer ESTALE
from then on (docs/adr/0004-telling-the-kernel-of-revisions.md).

A directory stream of the root that was begun in an older revision continues there: the offset of an entry
says which revision it is from.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import NamedTuple

from cvmfs_graphdriver.client.counters import ClientCounters, Count
from cvmfs_graphdriver.client.errors import StaleInodeError
from cvmfs_graphdriver.client.lru import LeastRecentlyUsed
from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.fuse.filesystem import RefusalError
from cvmfs_graphdriver.kernel.fuse.wire import FOREVER, ROOT_NODE, StatFs
from cvmfs_graphdriver.planes.filesystem.attributes import attributes_of
from cvmfs_graphdriver.planes.filesystem.kernel_pages import KernelPages
from cvmfs_graphdriver.planes.filesystem.listing import Directory, Item, Listing, Listings
from cvmfs_graphdriver.planes.filesystem.openfiles import OpenFiles
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, OwnerMap
from cvmfs_graphdriver.planes.tree import Tree
from cvmfs_graphdriver.planes.walk.feeder import Feeder, Pages
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["Presentation", "RevisionFilesystem"]

_log = logging.getLogger(__name__)

_TEXT_LIMIT = 2000
_ROOT_TTL = 60
"""Seconds for which the kernel may cache the attributes of the root."""
_LISTED = 65536
"""Entries in all listings that are kept."""
_PACKED = 992
"""The most entries that are packed together: as many as a tree reads in five times."""
_PARENT = 2
"""The offset behind ``..``; that behind another entry is larger by its row in the catalog."""
_OLD_TREES = 16
"""Revisions in which directory streams of the root can continue, including the newest."""
_ROOT_OFFSET_BITS = 33
"""One more than a row has."""


class Presentation(NamedTuple):
    """How entries are shown to users, and how many files may be open."""

    uids: OwnerMap = UNCHANGED
    gids: OwnerMap = UNCHANGED
    world_readable: bool = False
    open_files: int = 1024
    root_names: int = 1
    """Seconds for which the kernel may cache a name in the root."""


class RevisionFilesystem:
    """Serves the most recent tree. Implements ``kernel.fuse.filesystem.Filesystem``."""

    def __init__(
        self,
        tree: Tree,
        presentation: Presentation,
        statfs: Callable[[], StatFs],
        counters: ClientCounters,
        pages: Pages,
    ) -> None:
        self._counters = counters
        self._presentation = presentation
        self._statfs = statfs
        self._files = OpenFiles(presentation.open_files)
        self._kernel_pages = KernelPages()
        self._listings = Listings(_LISTED)
        self._feeder = Feeder(lambda: self._tree, pages)
        self._lock = threading.Lock()
        self._trees: LeastRecentlyUsed[int, Tree] = LeastRecentlyUsed(_OLD_TREES)
        self._tree = tree
        self.replace(tree)

    def replace(self, tree: Tree) -> None:
        """Show a new revision."""
        self._tree = tree
        with self._lock:
            self._trees.put(_generation(tree), tree)

    def close(self) -> None:
        """Close all files."""
        self._feeder.close()
        self._files.close()

    def close_evicted(self) -> None:
        """Close files that have been evicted and are not being read; they can be fetched again."""
        self._kernel_pages.add(self._files.close_evicted())
        self._kernel_pages.add(self._feeder.take_given())

    def to_be_asked_for(self) -> Collection[int]:
        """Files that the kernel has had for a while and should ask for again, so that use is noticed."""
        due = self._kernel_pages.due()
        self._files.drop(due)
        return due

    # Operations

    def lookup(self, parent: int, name: bytes) -> bytes:
        """What ``name`` in the directory ``parent`` is."""
        directory = self._node(parent)
        if name == b".":
            child: Node | None = directory
        elif name == b"..":
            child = self._node(directory.parent_inode)
        else:
            child = self._tree.child(directory, name)
        ttl = self._presentation.root_names if parent == ROOT_NODE else FOREVER
        if child is None:
            return wire.no_entry(ttl)
        return self._entry(child, ttl)

    def getattr(self, node: int) -> bytes:
        """The attributes of a node."""
        ttl = _ROOT_TTL if node == ROOT_NODE else FOREVER
        return wire.attributes_reply(self._attributes(self._node(node)), attribute_ttl=ttl)

    def readlink(self, node: int) -> bytes:
        """The target of a symbolic link."""
        found = self._node(node)
        if not found.entry.is_symlink:
            raise RefusalError(errno.EINVAL)
        return self._tree.readlink(found)

    def read(self, node: int, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with a file's bytes."""
        found = self._node(node)
        if not found.entry.is_regular:
            raise RefusalError(errno.EINVAL)
        wanted = max(0, min(len(buffer), found.entry.size - offset))
        file = self._files.get(node, lambda: self._open(found))
        if file.readinto(buffer[:wanted], offset) < wanted:
            # The kernel would read the missing bytes as zeros.
            raise CatalogError(
                f"{found.path!r} has fewer bytes than the {found.entry.size} that its catalog says"
            )
        return wanted

    def readdir(self, node: int, offset: int, size: int) -> bytes:
        """Entries of a directory."""
        return self._listing(node, offset).plain(offset, size)

    def readdirplus(self, node: int, offset: int, size: int) -> bytes:
        """Entries of a directory with their attributes."""
        entries = self._listing(node, offset).plus(offset, size)
        if not entries:
            self._feeder.listed(node)
        return entries

    def getxattr(self, node: int, name: bytes, gid: int) -> bytes:
        """The value of an extended attribute, magic or stored."""
        found = self._node(node)
        value = self._tree.magic_xattr(found, name, gid)
        if value is None:
            value = self._tree.xattrs(found).get(name)
        if value is None:
            raise RefusalError(errno.ENODATA)
        return value

    def listxattr(self, node: int) -> Iterable[bytes]:
        """The names of the extended attributes that are listed."""
        found = self._node(node)
        return {**self._tree.xattrs(found), **dict.fromkeys(self._tree.magic_names(found))}

    def statfs(self) -> StatFs:
        """Totals of the file system."""
        return self._statfs()

    def failed(self, node: int, error: Exception) -> None:
        """Count, keep and log what made an operation fail; at most one message per second."""
        now = time.time()
        quiet = now - self._counters.last_io_error < 1
        text = f"{self._shown(node)}{error}"[:_TEXT_LIMIT]
        self._counters.add_io_error(now, text)
        if not isinstance(error, CvmfsGraphdriverError):
            _log.error("cannot serve a request", exc_info=error)
        elif not quiet:
            _log.error("%s", text)

    # Nodes

    def _node(self, inode: int) -> Node:
        try:
            return self._tree.node(inode)
        except StaleInodeError:
            raise RefusalError(errno.ESTALE) from None

    def _shown(self, inode: int) -> str:
        """Which file an error is about; empty if it is none of the tree's."""
        try:
            path = self._tree.node(inode).path
        except Exception:  # noqa: BLE001 - the tree itself may be what is wrong
            return ""
        return f"{os.fsdecode(path)}: " if path else ""

    def _attributes(self, node: Node) -> bytes:
        target = self._tree.readlink(node) if node.entry.symlink else b""
        shown = self._presentation
        return attributes_of(node, target, shown.uids, shown.gids, world_readable=shown.world_readable).pack()

    def _entry(self, node: Node, ttl: int) -> bytes:
        return wire.entry(node.inode, self._attributes(node), entry_ttl=ttl)

    def _open(self, node: Node) -> OpenFile:
        self._counters.add(Count.OPENS)
        self._feeder.opened(node)
        return self._tree.open(node)

    # Directories

    def _listing(self, inode: int, offset: int) -> Listing:
        tree = self._tree
        base = 0
        if inode == ROOT_NODE:
            with self._lock:
                tree = self._trees.get(offset >> _ROOT_OFFSET_BITS) or tree
            base = _generation(tree) << _ROOT_OFFSET_BITS
        start = max(offset, base)
        return self._listings.get((inode, base), start, lambda: self._pack(tree, (inode, base), start))

    def _pack(self, tree: Tree, place: Directory, start: int) -> Listing:
        """Entries behind ``start``. A child's offset is its row in the catalog, plus ``_PARENT``."""
        inode, base = place
        directory = tree.node(ROOT_NODE) if inode == ROOT_NODE else self._node(inode)
        if not directory.entry.is_directory:
            raise RefusalError(errno.ENOTDIR)
        if start == base:
            self._counters.add(Count.DIRECTORY_OPENS)
        ttl = self._presentation.root_names if inode == ROOT_NODE else FOREVER
        unknown = wire.no_entry()  # the kernel already knows the directory and its parent
        items = [
            Item(wire.directory_entry_plus(name, number, directory.entry.mode, at, unknown), at)
            for at, name, number in (
                (base + 1, b".", inode),
                (base + _PARENT, b"..", directory.parent_inode),
            )
            if at > start
        ]
        for child in islice(tree.children(directory, max(start - base - _PARENT, 0)), _PACKED):
            at = base + _PARENT + child.entry.row
            entry = self._entry(child, ttl)
            packed = wire.directory_entry_plus(child.entry.name, child.inode, child.entry.mode, at, entry)
            items.append(Item(packed, at))
        return Listing(place, start, items, is_last=len(items) < _PACKED)


def _generation(tree: Tree) -> int:
    """The number of a revision, reduced so that an offset made from it is positive."""
    return tree.number & 0x3FFFFFFF
