"""What can be given to the kernel: a tree of nodes, as a revision of a repository is one.

Owns: the interface between the file system below and a revision, or a translation of one (``whiteouts``).
Must not know: FUSE. Nodes and open files are those of the client.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.tree.revision import Node

__all__ = ["Tree"]


class Tree(Protocol):
    """An immutable tree; safe for any number of threads. Methods raise what the client raises."""

    @property
    def number(self) -> int:
        """Which revision this is."""
        ...

    def node(self, inode: int) -> Node:
        """The node with this number, of this tree or of one that was mounted here before."""
        ...

    def lookup(self, path: bytes) -> Node | None:
        """The node at an absolute path (``b""`` is the root), None if there is none."""
        ...

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node called ``name`` in a directory, hidden ones included; None if there is none."""
        ...

    def children(self, parent: Node) -> Sequence[Node]:
        """All nodes of a directory but hidden ones, always in the same order."""
        ...

    def has_names(self, parent: Node, prefix: bytes) -> bool:
        """Whether a directory has a name that begins with ``prefix``."""
        ...

    def open(self, node: Node) -> OpenFile:
        """Open a regular file."""
        ...

    def prefetch(self, nodes: Sequence[Node], arrived: Callable[[Node, str], None]) -> int:
        """Begin to fetch regular files' content, and do not wait; returns how many objects were not there.

        ``arrived`` is given a node and the path of its content in the cache, when that is there whole.
        """
        ...

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link as users see it."""
        ...

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """The extended attributes that belong to the node."""
        ...

    def magic_xattr(self, node: Node, name: bytes, gid: int) -> bytes | None:
        """An attribute that tells of client and repository, for a caller of group ``gid``; None: no such."""
        ...

    def magic_names(self, node: Node) -> Sequence[bytes]:
        """The names of magic attributes that are listed."""
        ...
