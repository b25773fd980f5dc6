"""Merging layers, given by catalogs, into one tree as overlayfs would.

Owns: the way from catalog entries to the inodes of an image, and the merging: whiteouts and opaque
directories are resolved, so what an upper layer deletes or hides is gone. ``kernel.overlay`` defines which
names are whiteouts. Must not know: how catalogs are obtained, where images are kept.

The result is what the FUSE plane shows, and what ``overlay2`` would show with the unpacked layers: a merged
directory has the attributes of the topmost one, and the link count of a file is that of its layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from cvmfs_graphdriver.kernel.erofs import Directory, Inode
from cvmfs_graphdriver.kernel.overlay import OPAQUE_MARK, escape_xattr, hidden_by, is_mark, is_whiteout
from cvmfs_graphdriver.planes.erofs.objectnames import InodeName, StoredObject, redirect_to
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, OwnerMap
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import LISTED_ELSEWHERE, DirectoryEntry
from cvmfs_graphdriver.repository.catalog.xattr import parse_xattrs
from cvmfs_graphdriver.repository.digest import Digest
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError

__all__ = ["CatalogAt", "LayerTree", "flatten"]

CATALOG_LIMIT = 5_000
ENTRY_LIMIT = 10_000_000
DEPTH_LIMIT = 4096
"""What the layers of one image may have at most; the FUSE plane, which loads what is used, has no limit."""
_PATH_LIMIT = 1 << 16
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
    """A layer: the directory ``path`` of a repository.

    ``catalog`` opens the catalog that lists ``path`` or a nested mountpoint below it; ``uids`` and
    ``gids`` map the owners of files.
    """

    fqrn: str
    path: bytes
    catalog: Callable[[bytes], AbstractContextManager[CatalogAt]]
    uids: OwnerMap = UNCHANGED
    gids: OwnerMap = UNCHANGED


def flatten(layers: Sequence[LayerTree]) -> Directory:
    """The merged tree of layers, topmost first. Raises CatalogError, FormatError."""
    budget = _Limits()
    merged, *above = (_load(layer, budget) for layer in reversed(layers))
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
    depth: int


@dataclass(slots=True)
class _Limits:
    """What may still be visited for one image.

    Catalogs can be mounted inside one another, so a few of them may describe a tree without end.
    """

    catalogs: int = CATALOG_LIMIT
    entries: int = ENTRY_LIMIT

    def visit_catalog(self) -> None:
        self.catalogs -= 1
        if self.catalogs < 0:
            raise FormatError(f"the layers have more than {CATALOG_LIMIT} catalogs")

    def visit_entries(self, count: int, here: _Pending) -> None:
        self.entries -= count
        if self.entries < 0:
            raise FormatError(f"the layers have more than {ENTRY_LIMIT} entries")
        if here.depth > DEPTH_LIMIT or len(here.path) > _PATH_LIMIT:
            raise FormatError(f"the directories below {here.path[:64]!r} are nested too deeply")


def _load(layer: LayerTree, budget: _Limits) -> _Loaded:
    """Load one layer, with its deletions kept separately."""
    loaded = _Loaded(Directory())
    pending = [_Pending(loaded.root, layer.path, 0)]
    while pending:
        budget.visit_catalog()
        here = pending.pop()
        with layer.catalog(here.path) as source:
            if here.directory is loaded.root:
                entry = source.catalog.lookup(layer.path)
                if entry is None or not entry.is_directory:
                    raise CatalogError(f"the catalog {source.digest} does not list {layer.path!r}")
                loaded.root = _directory(entry, layer)
                here = here._replace(directory=loaded.root)
            pending += _load_catalog(layer, loaded, source, here, budget)
    return loaded


def _load_catalog(
    layer: LayerTree, loaded: _Loaded, source: CatalogAt, top: _Pending, budget: _Limits
) -> list[_Pending]:
    """Load what one catalog lists at and below ``top``; returns the mountpoints of nested catalogs."""
    nested: list[_Pending] = []
    groups: dict[int, Inode] = {}
    pending = [top]
    while pending:
        here = pending.pop()
        children, gone = here.directory.children, set()
        listing = source.catalog.listing(here.path)
        budget.visit_entries(len(listing), here)
        for each in listing:
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
                below = _Pending(child, here.path + b"/" + name, here.depth + 1)
                (nested if each.flags.value & LISTED_ELSEWHERE else pending).append(below)
            elif each.hardlink_group:
                known = groups.get(each.hardlink_group)
                if known is None:
                    known = groups[each.hardlink_group] = _inode(each, source, layer)
                children[name] = known
            else:
                children[name] = _inode(each, source, layer)
        if gone:
            _note(loaded, here.directory, {name for name in gone if name is not None})
    return nested


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
        inode.target = entry.symlink
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
