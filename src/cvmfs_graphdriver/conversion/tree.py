"""Translating a layer's entries into those that the publisher takes.

Owns: the translation, and dropping what the catalog format cannot hold. Must not know: registries, catalogs.
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
"""The mode of symbolic links on Linux, whatever a tar stream says."""
_XATTR_LIMIT: Final = 255
"""Catalogs store the lengths of names and values, and the number of attributes, in one byte each."""


def tree_entries(layer: LayerStream, notes: list[str]) -> Iterator[tuple[TreeEntry, ContentReader | None]]:
    """The entries of ``layer``, regular files with their content; ``notes`` receives what is dropped.

    The iteration ends only after the layer has been verified; it raises whatever reading the layer raises.
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
        f"bytes: a catalog holds at most {_XATTR_LIMIT} attributes of {_XATTR_LIMIT} bytes each"
        for name, value in entry.xattrs.items()
        if name not in kept
    )
    return kept
