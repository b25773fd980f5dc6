"""A layer's entries as the publisher takes them.

Owns: the translation of one room's vocabulary into the other's, and what the catalogs' format has no room
for. Must not know: registries, and catalogs themselves.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from cvmfs_graphdriver.oci.layer.entry import EntryKind, LayerEntry
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.storage.interface import ContentReader

__all__ = ["tree_entries"]

_TYPES: Final = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.HARD_LINK: stat.S_IFREG,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_LINK_MODE: Final = 0o777
"""What symbolic links have on Linux, whatever a tar stream says."""
_XATTR_LIMIT: Final = 255
"""Catalogs keep the lengths of names and values, and the count of attributes, in one byte each."""


def tree_entries(layer: LayerStream, notes: list[str]) -> Iterator[tuple[TreeEntry, ContentReader | None]]:
    """The entries of ``layer``, each regular file with its content; ``notes`` gets what must be left out.

    The end comes only after the layer has proved to be what it should be; until then raises what reading
    the layer raises.
    """
    for entry in layer:
        yield _translate(entry, notes), layer if entry.kind is EntryKind.FILE else None


def _translate(entry: LayerEntry, notes: list[str]) -> TreeEntry:
    kind, linkname = entry.kind, entry.linkname
    is_symlink = kind is EntryKind.SYMLINK
    return TreeEntry(
        entry.path,
        _TYPES[kind] | (_LINK_MODE if is_symlink else entry.mode),
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.mtime_ns,
        linkname if is_symlink else b"",
        linkname if kind is EntryKind.HARD_LINK else None,
        entry.device,
        _fitting(entry, notes) if entry.xattrs else {},
    )


def _fitting(entry: LayerEntry, notes: list[str]) -> Mapping[bytes, bytes]:
    """The extended attributes that a catalog can hold."""
    kept = {name: value for name, value in entry.xattrs.items() if len(value) <= _XATTR_LIMIT}
    kept = dict(sorted(kept.items())[:_XATTR_LIMIT])
    notes += (
        f"{os.fsdecode(entry.path)!r} loses its extended attribute {os.fsdecode(name)!r} of {len(value)} "
        f"bytes: a catalog holds {_XATTR_LIMIT} attributes of as many bytes"
        for name, value in entry.xattrs.items()
        if name not in kept
    )
    return kept
