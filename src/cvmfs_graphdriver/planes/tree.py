"""What can be presented to the kernel: a tree of nodes, such as a revision of a repository.

Owns: the interface between the file system and a revision, or a translation of one (``whiteouts``). Must not
know: FUSE. Nodes and open files are those of the client.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.tree.revision import Node

__all__ = ["Tree"]


class Tree(Protocol):
    """An immutable tree; safe for any number of threads. Methods raise errors of the client."""

    @property
    def number(self) -> int:
        """Which revision this is."""
        ...

    def node(self, inode: int) -> Node:
        """The node with this number, in this tree or in one that was mounted here before."""
        ...

    def lookup(self, path: bytes) -> Node | None:
        """The node at an absolute path (``b""`` is the root), None if there is none."""
        ...

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The node called ``name`` in a directory, hidden ones included; None if there is none."""
        ...

    def children(self, parent: Node, after: int = 0) -> Iterator[Node]:
        """The nodes of a directory except hidden ones, in the order of their rows in the catalog.

        Only those behind the row ``after``. They are read as they are asked for.
        """
        ...

    def has_names(self, parent: Node, prefix: bytes) -> bool:
        """Whether a directory has a name that begins with ``prefix``."""
        ...

    def open(self, node: Node) -> OpenFile:
        """Open a regular file."""
        ...

    def prefetch(self, nodes: Sequence[Node], arrived: Callable[[Node, str], None]) -> int:
        """Begin to fetch the contents of regular files, without waiting; returns how many objects were
        missing.

        ``arrived`` is called with a node and the path of its content in the cache, when it is there.
        """
        ...

    def cached_path(self, node: Node) -> str | None:
        """Where the content of a regular file is in the cache, or would be; None if not in one piece."""
        ...

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link as users see it."""
        ...

    def xattrs(self, node: Node) -> Mapping[bytes, bytes]:
        """The extended attributes that belong to the node."""
        ...

    def magic_xattr(self, node: Node, name: bytes, gid: int) -> bytes | None:
        """A magic attribute's value for a caller of group ``gid``; None if there is none."""
        ...

    def magic_names(self, node: Node) -> Sequence[bytes]:
        """The names of the magic attributes that are listed."""
        ...
