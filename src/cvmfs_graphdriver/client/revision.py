"""A mounted revision: an immutable view of a repository's tree.

Owns: the way from a path, or an inode number, to an entry, across nested catalogs. A node remembers the
catalog it comes from, so what was found in one revision stays complete and unmixed when the client has
moved on to the next. Must not know: FUSE, where bytes come from.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cvmfs_graphdriver.client.catalogs import Catalogs, Mount
from cvmfs_graphdriver.client.fetcher import Fetcher
from cvmfs_graphdriver.client.inodes import ROOT_INODE
from cvmfs_graphdriver.client.openfile import OpenFile
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, PathKey, Suffix
from cvmfs_graphdriver.repository.entry import CatalogReference, Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.variables import expand_variables
from cvmfs_graphdriver.repository.xattr import parse_xattrs

__all__ = ["Node", "Revision"]

_MOUNTPOINT = EntryFlag.NESTED_MOUNTPOINT | EntryFlag.BIND_MOUNTPOINT


@dataclass(frozen=True, slots=True)
class Node:
    """An entry at its place in the tree. ``mount`` is the catalog it was read from."""

    path: bytes
    inode: int
    parent_inode: int
    entry: DirectoryEntry
    mount: Mount = field(repr=False, compare=False)


class Revision:
    """One revision of one repository; safe for any number of threads."""

    def __init__(
        self,
        manifest: Manifest,
        root: CatalogReference,
        catalogs: Catalogs,
        fetcher: Fetcher,
        variables: Mapping[str, str],
    ) -> None:
        self.manifest = manifest
        self.root: Digest = root.digest
        self._catalogs = catalogs
        self._fetcher = fetcher
        self._variables = variables
        mount = catalogs.mount(root)
        self.number: int = mount.catalog.revision
        entry = mount.catalog.lookup(b"")
        assert entry is not None  # noqa: S101
        self._root = Node(b"", ROOT_INODE, ROOT_INODE, entry, mount)

    @property
    def fqrn(self) -> str:
        return self.manifest.fqrn

    def lookup(self, path: bytes) -> Node | None:
        """The node at an absolute path (``b""`` is the root), None if there is none."""
        if not path:
            return self._root
        directory, _, name = path.rpartition(b"/")
        parent = self.lookup(directory)
        return None if parent is None else self.child(parent, name)

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node called ``name`` in a directory, hidden ones included; None if there is none."""
        if not parent.entry.is_directory:
            return None
        mount = self._inside(parent)
        path = parent.path + b"/" + name
        entry = mount.catalog.lookup(path)
        return None if entry is None else Node(path, mount.inode(entry), parent.inode, entry, mount)

    def list(self, path: bytes) -> list[Node]:
        """All nodes of the directory at ``path`` but hidden ones; empty if it is no directory."""
        node = self.lookup(path)
        return [] if node is None else list(self.children(node))

    def children(self, parent: Node) -> Sequence[Node]:
        """All nodes of a directory but hidden ones, without ``.`` and ``..``; empty if it is none."""
        if not parent.entry.is_directory:
            return []
        mount = self._inside(parent)
        prefix = parent.path + b"/"
        return [
            Node(prefix + entry.name, mount.inode(entry), parent.inode, entry, mount)
            for entry in mount.catalog.listing(parent.path)
        ]

    def node(self, inode: int) -> Node:
        """The node with this number, of this revision or of an older one. Raises StaleInodeError."""
        if inode == ROOT_INODE:
            return self._root
        mount, row = self._catalogs.by_inode(inode)
        entry, parent_key = mount.catalog.entry_at(row)
        top = PathKey.of(mount.mountpoint)
        names = [entry.name]
        parent_inode = 0
        key = parent_key
        while key != top:
            parent, key = mount.catalog.by_key(key)
            parent_inode = parent_inode or mount.inode(parent)
            names.append(parent.name)
        if not parent_inode:
            directory = self.lookup(mount.mountpoint)
            parent_inode = directory.inode if directory else ROOT_INODE
        path = mount.mountpoint + b"".join(b"/" + name for name in reversed(names))
        return Node(path, inode, parent_inode, entry, mount)

    def open(self, node: Node) -> OpenFile:
        """Open a regular file; a whole object is fetched now, chunks when they are read."""
        entry = node.entry
        if entry.is_chunked:
            chunks = node.mount.catalog.chunks(node.path)
            return OpenFile(chunks, lambda chunk: self._fetch_chunk(entry, chunk), None)
        if entry.digest is None:
            return OpenFile((), lambda _: -1, os.memfd_create("empty", os.MFD_CLOEXEC))
        descriptor = self._fetcher.open(
            ObjectName(entry.digest), size=entry.size, compression=entry.compression
        )
        return OpenFile((), lambda _: -1, descriptor)

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link, variables expanded."""
        return expand_variables(node.entry.symlink, self._variables)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """The extended attributes that the catalog stores."""
        return parse_xattrs(node.entry.xattr)

    def _fetch_chunk(self, entry: DirectoryEntry, chunk: Chunk) -> int:
        name = ObjectName(chunk.digest, Suffix.PARTIAL)
        return self._fetcher.open(name, size=chunk.size, compression=entry.compression)

    def _inside(self, directory: Node) -> Mount:
        """The catalog that lists a directory: for a mountpoint the nested one."""
        mount = directory.mount
        if not directory.entry.flags & _MOUNTPOINT:
            return mount
        reference = mount.catalog.nested_for(directory.path)
        return mount if reference is None else self._catalogs.mount(reference)
