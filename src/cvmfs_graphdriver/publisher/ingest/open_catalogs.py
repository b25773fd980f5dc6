"""The catalogs that a transaction reads or changes, from the root down (format reference, 3 and 4.1).

Owns: which catalog is responsible for a path, keeping both sides of a mountpoint consistent, and propagating
counters and references up the tree when catalogs are stored. Must not know: where entries come from.

Catalogs are opened as private copies, on demand. All paths are absolute within the repository.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.ingest.autocatalogs import split_catalog
from cvmfs_graphdriver.publisher.ingest.tree import directory_entry
from cvmfs_graphdriver.publisher.options import Weights
from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.loader import CatalogLoader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["OpenCatalogs"]


@dataclass(slots=True)
class _OpenCatalog:
    """An opened or new catalog; ``previous`` and ``before`` describe it in the last revision."""

    writer: CatalogWriter
    previous: Digest | None = None
    before: Tally = field(default_factory=Tally)
    nested: dict[bytes, CatalogReference] = field(default_factory=dict)


class OpenCatalogs:
    """The catalogs of a repository below ``root``; for one thread at a time."""

    def __init__(
        self,
        root: CatalogReference,
        *,
        directory: Path,
        fetch: Callable[[Digest, Path], None],
        now: int,
    ) -> None:
        """Keep files in ``directory``; ``fetch`` writes the catalog with a given digest to a file there."""
        self._root = root
        self._directory = directory
        self._fetch = fetch
        self._now = now
        self._open: dict[bytes, _OpenCatalog] = {}
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for catalog in self._open.values():
            catalog.writer.abandon()

    # Lookup

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a path; for a mountpoint, the one in the catalog above."""
        return self._owner(path.rpartition(b"/")[0]).writer.lookup(path)

    def listing(self, path: bytes) -> list[DirectoryEntry]:
        """The entries of a directory, hidden ones included; empty if there is no such directory."""
        return self._owner(path).writer.listing(path)

    # Changes

    def new_catalog(self, path: bytes) -> CatalogWriter:
        """A catalog to be filled and then mounted at ``path``; until then for the caller's thread only."""
        return CatalogWriter.create(self._new_file(), mountpoint=path, now=self._now)

    def mount(self, catalog: CatalogWriter, entry: DirectoryEntry) -> None:
        """Mount a filled catalog, replacing what is at its mountpoint; ``entry`` is its root directory.

        Raises PublisherError: something on the way is not a directory.
        """
        path = catalog.mountpoint
        if self.lookup(path) is not None:
            self.remove(path)
        parent = self._make_directories(path.rpartition(b"/")[0])
        mountpoint = entry._replace(flags=entry.flags | EntryFlag.NESTED_MOUNTPOINT)
        self._owner(parent).writer.add(path, mountpoint)
        self._open[path] = _OpenCatalog(catalog)
        self._touch(parent, links=1)

    def adopt(self, catalog: CatalogWriter) -> None:
        """Take over a filled catalog whose mountpoint is already in the catalog above."""
        self._open[catalog.mountpoint] = _OpenCatalog(catalog)

    def put(self, path: bytes, entry: DirectoryEntry) -> None:
        """Put an entry, not a directory, in its place, replacing what is there.

        Raises PublisherError: something on the way is not a directory.
        """
        parent = self._make_directories(path.rpartition(b"/")[0])
        known = self.lookup(path)
        if known is not None and not known.is_directory:
            self._owner(parent).writer.replace(path, entry)
        else:
            if known is not None:
                self.remove(path)
            self._owner(parent).writer.add(path, entry)
        self._touch(parent, links=0)

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path`` and everything below it. Raises PublisherError: there is nothing."""
        parent = path.rpartition(b"/")[0]
        owner = self._owner(parent) if path else None
        entry = owner.writer.lookup(path) if owner else None
        if owner is None or entry is None:
            raise PublisherError(f"there is nothing at {path.decode('utf-8', 'replace') or '/'} to remove")
        self._remove(owner, path, entry)
        self._touch(parent, links=-1 if entry.is_directory else 0)

    def _remove(self, owner: _OpenCatalog, path: bytes, entry: DirectoryEntry) -> None:
        if EntryFlag.NESTED_MOUNTPOINT in entry.flags:
            self._remove_nested(owner, path)
        elif entry.is_directory:
            for child in owner.writer.listing(path):
                self._remove(owner, path + b"/" + child.name, child)
        owner.writer.remove(path)

    def _remove_nested(self, owner: _OpenCatalog, path: bytes) -> None:
        """Drop a nested catalog and everything below it, from the counters too."""
        nested = self._open.get(path) or self._load(owner.nested[path])
        for at in [at for at in self._open if at == path or at.startswith(path + b"/")]:
            self._open.pop(at).writer.abandon()
        nested.writer.abandon()
        if nested.previous is not None:
            owner.writer.remove_nested(path)
            del owner.nested[path]
            _add(owner.writer.counters.subtree, nested.before, -1)

    def _make_directories(self, path: bytes) -> bytes:
        """Make ``path`` a directory unless it is one."""
        if not path:
            return path
        entry = self.lookup(path)
        if entry is None:
            parent, _, name = path.rpartition(b"/")
            self._make_directories(parent)
            self._owner(parent).writer.add(path, directory_entry(name, now=self._now))
            self._touch(parent, links=1)
        elif not entry.is_directory:
            raise PublisherError(f"{path.decode('utf-8', 'replace')} is in the way: it is not a directory")
        return path

    def _touch(self, path: bytes, *, links: int) -> None:
        """Note that a directory gained or lost an entry; for a mountpoint, on both sides."""
        inner = self._owner(path).writer
        writers = [inner]
        if path and inner.mountpoint == path:
            writers.append(self._owner(path.rpartition(b"/")[0]).writer)
        for writer in writers:
            entry = writer.lookup(path)
            if entry is not None:
                changed = entry._replace(mtime=self._now, mtime_ns=None, linkcount=entry.linkcount + links)
                writer.replace(path, changed)

    def split(self, path: bytes, most: int, least: int, marker: Callable[[], DirectoryEntry]) -> None:
        """If the catalog at ``path`` has more than ``most`` entries, make catalogs of directories in it.

        Those with at least ``least`` entries get one each, with a marker as ``marker`` makes it.
        """
        owner = self._owner(path).writer
        if owner.mountpoint == path and owner.counters.self_.entries > most:
            weights = Weights(most=0, least=least)
            for made in split_catalog(owner, CatalogLoader(owner), weights, self.new_catalog, marker()):
                self.adopt(made)

    # Storing

    def finish(self, *, revision: int, ttl: int, store: Callable[[Path], Digest]) -> CatalogReference:
        """Complete and store all catalogs that have changed, deepest first; returns the new root's reference.

        The root catalog gets the number ``revision``; each of the others counts its own.
        """
        self._owner(b"").writer.set_property("TTL", str(ttl))
        for path in sorted(self._open, key=lambda path: path.count(b"/"), reverse=True):
            catalog = self._open[path]
            writer = catalog.writer
            if path and catalog.previous is not None and not writer.is_changed:
                continue
            writer.advance(now=self._now, previous=catalog.previous, revision=None if path else revision)
            total = writer.counters.total
            size = writer.finish()
            reference = CatalogReference(path, store(Path(writer.path)), size)
            if path:
                above = self._owner(path.rpartition(b"/")[0]).writer
                above.put_nested(reference)
                _add(above.counters.subtree, total, 1)
                _add(above.counters.subtree, catalog.before, -1)
        return reference

    # Catalogs

    def _owner(self, path: bytes) -> _OpenCatalog:
        """The catalog that lists the directory at ``path``."""
        catalog = self._open.get(b"") or self._load(self._root)
        self._open[b""] = catalog
        for at in _ancestry(path):
            if at in self._open:
                catalog = self._open[at]
            elif at in catalog.nested:
                catalog = self._open[at] = self._load(catalog.nested[at])
        return catalog

    def _load(self, reference: CatalogReference) -> _OpenCatalog:
        file = self._new_file()
        self._fetch(reference.digest, file)
        writer = CatalogWriter.open(file, mountpoint=reference.path)
        nested = {reference.path: reference for reference in writer.nested()}
        return _OpenCatalog(writer, reference.digest, writer.counters.total, nested)

    def _new_file(self) -> Path:
        return self._directory / f"catalog-{next(self._numbers)}"


def _ancestry(path: bytes) -> Iterator[bytes]:
    """``/a``, ``/a/b``, ``/a/b/c`` of ``/a/b/c``."""
    at = path.find(b"/", 1)
    while at > 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
    if path:
        yield path


def _add(tally: Tally, other: Tally, sign: int) -> None:
    for one in fields(Tally):
        setattr(tally, one.name, getattr(tally, one.name) + sign * getattr(other, one.name))
