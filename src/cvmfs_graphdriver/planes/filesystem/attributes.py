"""A catalog entry as stat(2) shows it (CernVM-FS format reference, section 3.6).

Owns: the sizes, blocks, link counts, times and owners that are shown. Must not know: how the kernel asks.
"""

from cvmfs_graphdriver.client.tree.revision import Node
from cvmfs_graphdriver.kernel.fuse.wire import Attributes
from cvmfs_graphdriver.planes.filesystem.ownership import OwnerMap

__all__ = ["attributes_of"]

_WORLD_READABLE = 0o444
_WORLD_SEARCHABLE = 0o555


def attributes_of(
    node: Node, target: bytes, uids: OwnerMap, gids: OwnerMap, *, world_readable: bool = False
) -> Attributes:
    """The attributes of a node; ``target`` is what a symbolic link points to, as users see it.

    ``world_readable`` shows every file as readable and every directory as searchable by everybody.
    """
    entry = node.entry
    size = entry.size
    mode = entry.mode
    if entry.symlink:
        size = len(target)
    elif world_readable and not entry.is_symlink:
        mode |= _WORLD_SEARCHABLE if entry.is_directory else _WORLD_READABLE
    return Attributes(
        node.inode,
        mode,
        size,
        1 + size // 512,
        entry.mtime,
        entry.mtime_ns or 0,
        entry.linkcount,
        uids(entry.uid),
        gids(entry.gid),
        entry.rdev,
    )
