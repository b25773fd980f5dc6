"""Layers in the form that overlayfs needs: the one place where whiteouts are translated.

In a repository a layer has the names of its tar stream: ``.wh.x`` deletes ``x`` in the layers below,
``.wh..wh..opq`` hides everything below its directory (``kernel.overlay`` has the rules). This tree shows the
same layer with character devices 0:0 and opaque directories instead of the marks. An image's own attributes
in the namespace ``trusted.overlay.`` are escaped, so that containers see them and overlayfs does not act on
them.

A whiteout applies to lower layers only. If a layer has both ``.wh.x`` and a directory ``x``, then ``x`` is
new in this layer and hides any older ``x``: it is opaque.

Overlayfs never asks whether the root of a layer is opaque; whoever stacks layers must, see ``plane``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.kernel.overlay import (
    MARK,
    OPAQUE_MARK,
    OPAQUE_VALUE,
    OPAQUE_XATTR,
    ORIGIN_XATTR,
    WHITEOUT_DEVICE,
    WHITEOUT_MODE,
    escape_xattr,
    hidden_by,
    is_mark,
    whiteout_of,
)
from cvmfs_graphdriver.planes.tree import Tree
from cvmfs_graphdriver.repository.catalog.entry import EntryFlag

__all__ = ["OverlayTree"]


class OverlayTree:
    """A tree with whiteouts in the form of overlayfs. Implements ``Tree``."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @property
    def number(self) -> int:
        """Which revision this is."""
        return self._tree.number

    def node(self, inode: int) -> Node:
        """The node with this number; for a mark, the whiteout that stands for it."""
        node = self._tree.node(inode)
        return _whiteout(node) if is_mark(node.entry.name) else node

    def lookup(self, path: bytes) -> Node | None:
        """The node at an absolute path, None if there is none."""
        if not path:
            return self._tree.lookup(path)
        directory, _, name = path.rpartition(b"/")
        parent = self._tree.lookup(directory)
        return None if parent is None else self.child(parent, name)

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node called ``name``, or the whiteout if this layer deletes ``name``."""
        if is_mark(name):
            return None
        node = self._tree.child(parent, name)
        if node is not None:
            return node
        mark = self._tree.child(parent, whiteout_of(name))
        return None if mark is None or hidden_by(mark.entry.name) is None else _whiteout(mark)

    def children(self, parent: Node, after: int = 0) -> Iterator[Node]:
        """The nodes of a directory, with a whiteout in the place of each mark for what is not there."""
        for node in self._tree.children(parent, after):
            name = node.entry.name
            if not is_mark(name):
                yield node
            elif (hidden := hidden_by(name)) is not None and self._tree.child(parent, hidden) is None:
                yield _whiteout(node)

    def has_names(self, parent: Node, prefix: bytes) -> bool:
        """Whether a directory has a name that begins with ``prefix``, including marks."""
        return self._tree.has_names(parent, prefix)

    def open(self, node: Node) -> OpenFile:
        """Open a regular file."""
        return self._tree.open(node)

    def prefetch(self, nodes: Sequence[Node], arrived: Callable[[Node, str], None]) -> int:
        """Begin to fetch regular files' content."""
        return self._tree.prefetch(nodes, arrived)

    def cached_path(self, node: Node) -> str | None:
        """Where a regular file's content is in the cache."""
        return self._tree.cached_path(node)

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link as stored: an image must not see the node's configuration."""
        return node.entry.symlink

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """The image's attributes, escaped, and overlay's own for a directory that is opaque or marked."""
        attributes = {escape_xattr(name): value for name, value in self._tree.xattrs(node).items()}
        if node.entry.is_directory:
            marked = self._tree.has_names(node, MARK)
            if (marked and self._tree.child(node, OPAQUE_MARK) is not None) or self._is_made_again(node):
                attributes[OPAQUE_XATTR] = OPAQUE_VALUE
            if marked:
                attributes[ORIGIN_XATTR] = b""
        return attributes

    def magic_xattr(self, node: Node, name: bytes, gid: int) -> bytes | None:
        """Only for the repository's root: overlayfs would copy others up with their files."""
        return None if node.path else self._tree.magic_xattr(node, name, gid)

    def magic_names(self, node: Node) -> Sequence[bytes]:
        """None."""
        del node
        return ()

    def _is_made_again(self, node: Node) -> bool:
        """Whether the layer also deletes an older entry of the same name."""
        directory, _, name = node.path.rpartition(b"/")
        parent = self._tree.lookup(directory) if name else None
        return (
            parent is not None
            and self._tree.has_names(parent, MARK)
            and self._tree.child(parent, whiteout_of(name)) is not None
        )


def _whiteout(mark: Node) -> Node:
    """The device that stands for a mark. It has the mark's inode, so it can be found by number."""
    entry = mark.entry
    name = hidden_by(entry.name) or entry.name
    device = entry._replace(
        name=name,
        mode=WHITEOUT_MODE,
        rdev=WHITEOUT_DEVICE,
        size=0,
        flags=EntryFlag(0),
        linkcount=1,
        hardlink_group=0,
        digest=None,
        symlink=b"",
        xattr=b"",
    )
    return mark._replace(path=mark.path.rpartition(b"/")[0] + b"/" + name, entry=device)
