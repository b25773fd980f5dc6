"""Merging layers, given by catalogs, into one tree as overlayfs would.

Owns: the way from catalog entries to the inodes of an image, and the merging: whiteouts and opaque
directories are resolved, so what an upper layer deletes or hides is gone. ``kernel.overlay`` defines which
names are whiteouts. Must not know: how catalogs are obtained, where images are kept.

The result is what the FUSE plane shows, and what ``overlay2`` would show with the unpacked layers: a merged
directory has the attributes of the topmost one, and the link count of a file is that of its layer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cvmfs_graphdriver.kernel.erofs import Directory, Inode
from cvmfs_graphdriver.kernel.overlay import OPAQUE_MARK, escape_xattr, hidden_by, is_mark, is_whiteout
from cvmfs_graphdriver.planes.erofs.objectnames import InodeName, StoredObject, redirect_to
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, OwnerMap
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import LISTED_ELSEWHERE, DirectoryEntry
from cvmfs_graphdriver.repository.catalog.variables import expand_variables
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["CatalogAt", "LayerTree", "flatten"]

_NAME_LIMIT = 255
_LAST = 2**32 - 1
_MISSING = b"missing"
"""Data of a file whose catalog does not say where its content is: a name that no trigger knows."""


@dataclass(frozen=True, slots=True, eq=False)
class CatalogAt:
    """An open catalog; ``offset`` turns its rows into inode numbers."""

    digest: Digest
    offset: int
    catalog: Catalog


@dataclass(frozen=True, slots=True)
class LayerTree:
    """A layer: the directory ``path`` of a repository, listed by the catalog ``top``.

    ``nested`` returns the catalog of a nested mountpoint; ``variables`` are those of variant symlinks;
    ``uids`` and ``gids`` map the owners of files.
    """

    fqrn: str
    path: bytes
    top: CatalogAt
    nested: Callable[[bytes], CatalogAt]
    variables: Mapping[str, str]
    uids: OwnerMap = UNCHANGED
    gids: OwnerMap = UNCHANGED


def flatten(layers: Sequence[LayerTree]) -> Directory:
    """The merged tree of layers, topmost first. Raises CatalogError, FormatError."""
    merged, *above = (_load(layer) for layer in reversed(layers))
    for upper in above:
        _merge(merged.root, upper)
    return merged.root


@dataclass(slots=True)
class _Loaded:
    """The tree of one layer, and what it changes in the layers below."""

    root: Directory
    opaque: set[Directory] = field(default_factory=set)
    gone: dict[Directory, set[bytes]] = field(default_factory=dict)


class _Pending(NamedTuple):
    """A directory whose entries are still to be loaded."""

    directory: Directory
    path: bytes
    source: CatalogAt


def _load(layer: LayerTree) -> _Loaded:
    """Load one layer, with its deletions kept separately."""
    entry = layer.top.catalog.lookup(layer.path)
    if entry is None or not entry.is_directory:
        raise CatalogError(f"the catalog {layer.top.digest} does not list {layer.path!r}")
    loaded = _Loaded(_directory(entry, layer))
    groups: dict[tuple[CatalogAt, int], Inode] = {}
    pending = [_Pending(loaded.root, layer.path, layer.top)]
    while pending:
        here = pending.pop()
        children, gone = here.directory.children, set()
        for each in here.source.catalog.listing(here.path):
            name = each.name
            if is_mark(name):
                if name == OPAQUE_MARK:
                    loaded.opaque.add(here.directory)
                else:
                    gone.add(hidden_by(name))
                continue
            if is_whiteout(each.mode, each.rdev):
                gone.add(name)
                continue
            _check(name, here.path)
            if each.is_directory:
                child = children[name] = _directory(each, layer)
                path = here.path + b"/" + name
                source = layer.nested(path) if each.flags.value & LISTED_ELSEWHERE else here.source
                pending.append(_Pending(child, path, source))
            elif each.hardlink_group:
                key = (here.source, each.hardlink_group)
                known = groups.get(key)
                if known is None:
                    known = groups[key] = _inode(each, here.source, layer)
                children[name] = known
            else:
                children[name] = _inode(each, here.source, layer)
        if gone:
            _note(loaded, here.directory, {name for name in gone if name is not None})
    return loaded


def _note(loaded: _Loaded, directory: Directory, gone: set[bytes]) -> None:
    """Note what a directory deletes. If it also has the name, that entry hides anything older."""
    loaded.gone[directory] = gone
    for name in gone:
        child = directory.children.get(name)
        if isinstance(child, Directory):
            loaded.opaque.add(child)


def _merge(root: Directory, upper: _Loaded) -> None:
    """Merge a layer into the tree at ``root``."""
    for low, high in _pairs(root, upper.root):
        for name in ("mode", "uid", "gid", "mtime", "mtime_ns", "xattrs"):
            setattr(low, name, getattr(high, name))
        if high in upper.opaque:
            low.children.clear()
        for deleted in upper.gone.get(high, ()):
            if not isinstance(high.children.get(deleted), Directory):
                low.children.pop(deleted, None)


def _pairs(root: Directory, upper: Directory) -> Iterator[tuple[Directory, Directory]]:
    """Pairs of directories to merge; entries that only the upper one has are moved on the way."""
    pending = [(root, upper)]
    while pending:
        low, high = pending.pop()
        yield low, high
        for name, child in high.children.items():
            below = low.children.get(name)
            if isinstance(child, Directory) and isinstance(below, Directory):
                pending.append((below, child))
            else:
                low.children[name] = child


def _check(name: bytes, directory: bytes) -> None:
    """Raise CatalogError for a name that no directory can have, which an image would show nevertheless."""
    if not 0 < len(name) <= _NAME_LIMIT or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise CatalogError(f"the catalog has the invalid name {name[:64]!r} in {directory!r}")


def _attributes(entry: DirectoryEntry) -> dict[bytes, bytes] | None:
    if not entry.xattr:
        return None
    return {escape_xattr(name): value for name, value in parse_xattrs(entry.xattr).items()}


def _directory(entry: DirectoryEntry, layer: LayerTree) -> Directory:
    return Directory(
        entry.mode,
        layer.uids(entry.uid),
        layer.gids(entry.gid),
        entry.mtime,
        entry.mtime_ns or 0,
        _attributes(entry),
    )


def _inode(entry: DirectoryEntry, source: CatalogAt, layer: LayerTree) -> Inode:
    inode = Inode(
        entry.mode,
        layer.uids(entry.uid),
        layer.gids(entry.gid),
        entry.mtime,
        entry.mtime_ns or 0,
        min(entry.linkcount, _LAST),
        _attributes(entry),
    )
    if entry.is_regular:
        inode.size = entry.size
        if entry.size:
            inode.redirect = redirect_to(layer.fqrn, _data(entry, source))
    elif entry.is_symlink:
        inode.target = expand_variables(entry.symlink, layer.variables)
    else:
        inode.rdev = entry.rdev
    return inode


def _data(entry: DirectoryEntry, source: CatalogAt) -> bytes:
    """The path of a file's data."""
    if entry.is_chunked or entry.is_external:
        row = source.catalog.group_row(entry.hardlink_group) if entry.hardlink_group else 0
        return InodeName(source.offset + (row or entry.row), source.digest).path
    if entry.digest is None:
        return _MISSING
    return StoredObject(entry.digest, entry.size, entry.compression).path
