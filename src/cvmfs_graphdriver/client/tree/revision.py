"""A mounted revision: an immutable view of a repository's tree.

Owns: the way from a path, or an inode number, to an entry, across nested catalogs. A node remembers the
catalog that it comes from, so what was found in one revision stays consistent after the client has moved on
to the next. Must not know: FUSE, where bytes come from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from cvmfs_graphdriver.client.objects.contents import Contents
from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.tree.catalogs import Catalogs, MountedCatalog
from cvmfs_graphdriver.client.tree.generations import Generations
from cvmfs_graphdriver.client.tree.inodes import ROOT_INODE
from cvmfs_graphdriver.repository.catalog.entry import LISTED_ELSEWHERE, DirectoryEntry
from cvmfs_graphdriver.repository.catalog.variables import expand_variables
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.digest import Digest, PathKey
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.manifest import Manifest

__all__ = ["Magic", "Node", "Revision", "Services", "Totals"]

_DEPTH_LIMIT = 4096
"""The most components that a path can have."""
_NODE_BYTES = 1024
"""The approximate memory that a node takes."""
_FEW = 32
_MANY = 512
"""How many children are asked for at a time: few at first, since a caller may only want the next one."""


class Node(NamedTuple):
    """An entry at its place in the tree. ``mount`` is the catalog it was read from.

    The inode of the root is 1. It is a tuple because listings may have hundreds of thousands of nodes.
    """

    path: bytes
    inode: int
    parent_inode: int
    entry: DirectoryEntry
    mount: MountedCatalog


class Totals(NamedTuple):
    """Numbers for statfs(2): the cache's limit and free space in bytes, entries in all catalogs."""

    size: int
    free: int
    files: int


class Magic(Protocol):
    """The attributes in which a repository describes itself."""

    def names(self, revision: "Revision", node: Node) -> Sequence[bytes]: ...
    def value(self, revision: "Revision", node: Node, name: bytes, gid: int) -> bytes | None: ...


class Services(NamedTuple):
    """What revisions of one repository share.

    ``variables`` are those of variant symlinks, ``capacity`` returns the cache's limit and free space in
    bytes, ``memory`` is how many bytes may be used for caching nodes.
    """

    catalogs: Catalogs
    contents: Contents
    variables: Mapping[str, str]
    magic: "Magic"
    capacity: Callable[[], tuple[int, int]]
    memory: int


class Revision:
    """One revision of one repository; safe for any number of threads."""

    fqrn: str
    manifest: Manifest | None
    """What named the root catalog; None if that was the configuration or the breadcrumb."""
    root: Digest
    number: int
    ttl: int | None
    """Seconds after which to look for a newer revision; None if unspecified."""
    membership: str | None
    """What readers must be members of (format reference, section 11); None if everybody may read."""
    top: Node
    """The root directory."""

    def __init__(
        self, fqrn: str, manifest: Manifest | None, root: MountedCatalog, services: Services
    ) -> None:
        self.fqrn = fqrn
        self.manifest = manifest
        self._services = services
        capacity = services.memory // _NODE_BYTES // 4
        self._short = max(_FEW, capacity // 2)
        """Listings with fewer nodes are remembered."""
        self._nodes: Generations[int, Node] = Generations(capacity)
        self._listings: Generations[int, dict[bytes, Node]] = Generations(capacity)
        self._directories: Generations[tuple[MountedCatalog, PathKey], tuple[bytes, int]] = Generations(
            capacity
        )
        entry = root.catalog.lookup(b"")
        if entry is None or not entry.is_directory:
            raise CatalogError(f"the root catalog {root.digest} of {fqrn} has no root directory")
        self.root = root.digest
        self.number = root.catalog.revision
        self._volatile = root.catalog.properties.get("volatile") == "1"
        self.membership = root.catalog.properties.get("voms_authz")
        ttl = root.catalog.ttl
        self.ttl = manifest.ttl if ttl is None and manifest else ttl
        self.top = Node(b"", ROOT_INODE, ROOT_INODE, entry, root)

    # Finding nodes

    def lookup(self, path: bytes) -> Node | None:
        """The node at an absolute path (``b""`` is the root), None if there is none."""
        if not path:
            return self.top
        directory, _, name = path.rpartition(b"/")
        parent = self.lookup(directory)
        return None if parent is None else self.child(parent, name)

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node called ``name`` in a directory; None if there is none, or only a hidden marker.

        Other hidden ones are found.
        """
        listing = self._listings.get(parent.inode)
        if listing is not None:
            known = listing.get(name)
            if known is not None:
                return known
        if not parent.entry.is_directory:
            return None
        mount = self._inside(parent)
        path = b"%b/%b" % (parent.path, name)
        entry = mount.catalog.lookup(path)
        if entry is None or entry.is_hidden_marker:
            return None
        node = Node(path, mount.inode(entry), parent.inode, entry, mount)
        self._nodes.put(node.inode, node)
        return node

    def children(self, parent: Node, after: int = 0) -> Iterator[Node]:
        """The nodes of a directory in the order of their rows; none if it is not a directory.

        ``.``, ``..`` and hidden ones are not among them, nor those up to the row ``after``. However many
        there are, some hundreds at a time are read and held.
        """
        listing = self._listings.get(parent.inode)
        if listing is not None:
            yield from (node for node in listing.values() if node.entry.row > after)
            return
        if not parent.entry.is_directory:
            return
        mount = self._inside(parent)
        prefix = parent.path + b"/"
        inode = mount.inode
        limit = _FEW if after else self._short
        while True:
            entries = mount.catalog.listing(parent.path, after=after, limit=limit)
            nodes = [Node(prefix + entry.name, inode(entry), parent.inode, entry, mount) for entry in entries]
            is_last = len(nodes) < limit
            if is_last and not after:
                self._listings.put(parent.inode, {node.entry.name: node for node in nodes}, len(nodes) + 1)
            for node in nodes:
                if node.entry.is_directory:  # whoever walks through a tree asks for them next
                    self._nodes.put(node.inode, node)
            yield from nodes
            if is_last:
                return
            after = nodes[-1].entry.row
            limit = min(2 * limit, _MANY)

    def has_names(self, parent: Node, prefix: bytes) -> bool:
        """Whether a directory has a name that begins with ``prefix``; the first call reads all names."""
        if not parent.entry.is_directory:
            return False
        catalog = self._inside(parent).catalog
        return catalog.key_of(parent.path) in catalog.directories_with(prefix)

    def node(self, inode: int) -> Node:
        """The node with this number, in this revision or an older one. Raises StaleInodeError."""
        if inode == ROOT_INODE:
            return self.top
        known = self._nodes.get(inode)
        if known is None:
            known = self._find(inode)
            self._nodes.put(inode, known)
        return known

    def list(self, path: bytes) -> list[Node]:
        """``children`` of the directory at ``path``; empty if there is none."""
        node = self.lookup(path)
        return [] if node is None else [*self.children(node)]

    # What belongs to a node

    def open(self, node: Node) -> OpenFile:
        """Open a regular file; a single object is fetched now, chunks when they are read."""
        chunks = node.mount.catalog.chunks(node.path) if node.entry.is_chunked else ()
        return self._services.contents.open(node.path, node.entry, chunks, volatile=self._volatile)

    def prefetch(self, nodes: Sequence[Node], arrived: Callable[[Node, str], None]) -> int:
        """Begin to fetch the contents of regular files, without waiting; returns how many objects were
        missing.

        ``arrived`` is called with each node that consists of one object, and its path in the cache.
        """
        return self._services.contents.prefetch(
            (
                (
                    node.path,
                    node.entry,
                    node.mount.catalog.chunks(node.path) if node.entry.is_chunked else (),
                    partial(arrived, node),
                )
                for node in nodes
            ),
            volatile=self._volatile,
        )

    def cached_path(self, node: Node) -> str | None:
        """Where the content of a regular file is in the cache, or would be; None if not in one piece."""
        return self._services.contents.cached_path(node.entry)

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link, with variables expanded."""
        return expand_variables(node.entry.symlink, self._services.variables)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """The extended attributes stored in the catalog."""
        return parse_xattrs(node.entry.xattr) if node.entry.xattr else {}

    def magic_xattr(self, node: Node, name: bytes, gid: int = 0) -> bytes | None:
        """The value of a magic extended attribute for a caller of group ``gid``; None if there is none."""
        return self._services.magic.value(self, node, name, gid)

    def magic_names(self, node: Node) -> Sequence[bytes]:
        """The magic extended attributes that a listing of this node shows."""
        return self._services.magic.names(self, node)

    def mount_of(self, node: Node) -> MountedCatalog:
        """The catalog that a node belongs to: for a mountpoint the nested one, loaded if necessary."""
        return self._inside(node) if node.entry.is_directory else node.mount

    def statfs(self) -> Totals:
        """Totals of the cache and of all catalogs, loaded or not."""
        return Totals(*self._services.capacity(), self.top.mount.catalog.counters.total.entries)

    def _inside(self, directory: Node) -> MountedCatalog:
        """The catalog that lists a directory: for a mountpoint the nested one."""
        mount = directory.mount
        if directory.entry.flags.value & LISTED_ELSEWHERE:
            reference = mount.nested_at(directory.path)
            if reference is not None:
                return self._services.catalogs.mount(reference)
        return mount

    def _find(self, inode: int) -> Node:
        """Find a node by its number alone."""
        mount, row = self._services.catalogs.by_inode(inode)
        entry, key = mount.catalog.entry_at(row)
        directory, parent_inode = self._directory(mount, key)
        return Node(b"%b/%b" % (directory, entry.name), inode, parent_inode, entry, mount)

    def _directory(self, mount: MountedCatalog, key: PathKey) -> tuple[bytes, int]:
        """Path and inode of a directory of a catalog, found by climbing to a directory that is known."""
        catalog = mount.catalog
        climbed: list[tuple[PathKey, bytes, int]] = []
        while key != catalog.root_key:
            known = self._directories.get((mount, key))
            if known is not None:
                path, inode = known
                break
            entry, above = catalog.by_key(key)
            climbed.append((key, entry.name, mount.inode(entry)))
            if len(climbed) > _DEPTH_LIMIT:
                raise CatalogError(
                    f"the catalog of {mount.mountpoint!r} has directories that contain themselves"
                )
            key = above
        else:
            mountpoint = self.lookup(mount.mountpoint)
            path, inode = mount.mountpoint, mountpoint.inode if mountpoint else ROOT_INODE
        for key, name, number in reversed(climbed):
            path, inode = b"%b/%b" % (path, name), number
            self._directories.put((mount, key), (path, inode))
        return path, inode
