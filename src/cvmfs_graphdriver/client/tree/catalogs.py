"""Catalogs in use: fetched on demand and open, each with its range of inode numbers.

Owns: the way from a catalog at a mountpoint to an open database, how many databases are open at once, and the
inode numbers of entries. Must not know: which revision needs a catalog; one that two revisions share is
opened once. Closing idle ones is a clock algorithm rather than an LRU cache, so that using a catalog takes no
lock.
"""

import threading
from collections import deque
from typing import NamedTuple

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.cache.cache import Cache
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.client.objects.descriptor import Descriptor
from cvmfs_graphdriver.client.objects.fetcher import Fetcher
from cvmfs_graphdriver.client.tree.inodes import InodeTable
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference, DirectoryEntry
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.paths import shown

__all__ = ["Catalogs", "MountedCatalog"]

_SIZE_LIMIT = 4 * 1024**3
"""The limit in bytes for a catalog whose size is unknown."""
_TRIES = 3


class _Open(NamedTuple):
    """An open database, and what keeps its file from being evicted."""

    catalog: Catalog
    held: Descriptor


class MountedCatalog:
    """A catalog at a mountpoint. There is one object for each, which opens the database when it is needed.

    To work with the database, take it from ``catalog`` once and keep the reference: the database is closed
    when it is no longer referenced.
    """

    __slots__ = ("_nested", "_open", "_owner", "_used", "offset", "reference")

    def __init__(self, owner: "Catalogs", reference: CatalogReference, opened: "_Open", offset: int) -> None:
        self._owner = owner
        self._open: _Open | None = opened
        self._nested: dict[bytes, CatalogReference] | None = None
        self._used = True
        self.reference = reference
        self.offset = offset
        """What is added to a row number to get an inode number."""

    @property
    def mountpoint(self) -> bytes:
        return self.reference.path

    @property
    def digest(self) -> Digest:
        return self.reference.digest

    @property
    def catalog(self) -> Catalog:
        """The open database. If it has to be fetched again, raises what that raises."""
        self._used = True
        return (self._open or self._owner.reopen(self)).catalog

    def nested_at(self, path: bytes) -> CatalogReference | None:
        """The nested catalog at ``path``, if there is one."""
        if self._nested is None:
            self._nested = {reference.path: reference for reference in self.catalog.nested()}
        return self._nested.get(path)

    def inode(self, entry: DirectoryEntry) -> int:
        """The inode number of an entry of this catalog; all members of a hard-link group have the same."""
        if entry.hardlink_group:
            return self.offset + (self.catalog.group_row(entry.hardlink_group) or entry.row)
        return self.offset + entry.row


class Catalogs:
    """All catalogs of one repository; safe for any number of threads. At most ``limit`` are kept open."""

    def __init__(self, fetcher: Fetcher, cache: Cache, inodes: InodeTable, limit: int) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._inodes = inodes
        self._limit = limit
        self._lock = threading.Lock()
        self._mounts: dict[tuple[bytes, Digest], MountedCatalog] = {}
        self._open: deque[MountedCatalog] = deque()

    def mount(self, reference: CatalogReference, path: str = "") -> MountedCatalog:
        """The catalog of ``reference`` at ``reference.path``; ``path`` is for one at an unusual path on
        servers.

        Raises TransferError, RepositoryError, CacheError.
        """
        key = (reference.path, reference.digest)
        known = self._mounts.get(key)
        if known is not None:
            return known
        opened = self._load(reference, path)
        taken = self._inodes.range_of(reference.path, reference.digest, opened.catalog.max_row)
        with self._lock:
            known = self._mounts.get(key)
            if known is None:
                known = self._mounts[key] = MountedCatalog(self, reference, opened, taken.offset)
                self._opened(known)
            return known

    def by_inode(self, inode: int) -> tuple[MountedCatalog, int]:
        """The catalog that an inode belongs to, and its row there. Raises StaleInodeError."""
        found = self._inodes.find(inode)
        mount = self.mount(CatalogReference(found.mountpoint, found.digest, 0))
        return mount, inode - found.offset

    def reopen(self, mount: MountedCatalog) -> _Open:
        """Open a database again that was closed in favour of others."""
        opened = self._load(mount.reference, "")
        with self._lock:
            if mount._open is not None:
                return mount._open
            mount._open = opened
            self._opened(mount)
        return opened

    @property
    def max_inode(self) -> int:
        """The greatest inode number in use."""
        return self._inodes.greatest

    def open_mounts(self) -> list[MountedCatalog]:
        """Catalogs whose databases are open."""
        with self._lock:
            return list(self._open)

    def detach(self) -> None:
        """Close all databases that are not being used right now; they are opened again when needed."""
        with self._lock:
            while self._open:
                self._open.popleft()._open = None

    def close(self) -> None:
        """Close all catalogs."""
        self.detach()
        self._mounts.clear()

    def _load(self, reference: CatalogReference, path: str) -> _Open:
        name = ObjectName(reference.digest, Suffix.CATALOG)
        exact = reference.size > 0
        size = reference.size if exact else _SIZE_LIMIT
        wanted = Wanted(name, size, exact=exact, path=path, label=f"catalog of {shown(reference.path)},")
        for _ in range(_TRIES):
            self._fetcher.fetch(wanted)
            held = self._cache.hold(reference.digest)
            if held is not None:
                return self._open_held(reference, Descriptor(held))
        raise CacheError(f"catalog {name} disappears from the cache as soon as it is there")

    def _open_held(self, reference: CatalogReference, held: Descriptor) -> _Open:
        path = self._cache.path(reference.digest)
        try:
            return _Open(Catalog.open(path, mountpoint=reference.path), held)
        except CatalogError:
            # Its digest was right when it was stored; it may have been damaged on the disk since.
            self._cache.doubt(reference.digest)
            raise

    def _opened(self, mount: MountedCatalog) -> None:
        """Note that one more is open, and close one that has not been used lately if there are too many."""
        self._open.append(mount)
        while len(self._open) > self._limit:
            oldest = self._open.popleft()
            if oldest._used:
                oldest._used = False
                self._open.append(oldest)
            else:
                oldest._open = None
