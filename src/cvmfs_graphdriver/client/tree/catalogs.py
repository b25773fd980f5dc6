"""Catalogs in use: fetched on demand, open, each with its range of inode numbers.

Owns: the way from "this catalog at this place" to an open database, how many databases are open at once, and
the inode of an entry. Must not know: which revision wants a catalog; one that two revisions share is open
once.
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

__all__ = ["Catalogs", "Mount"]

_SIZE_LIMIT = 4 * 1024**3
"""Bytes of a catalog whose size nobody told."""
_TRIES = 3


class _Open(NamedTuple):
    """An open database, and what keeps its file in the cache meanwhile."""

    catalog: Catalog
    held: Descriptor


class Mount:
    """A catalog at a mountpoint. There is one object for each; it opens the database when it is needed.

    Who works with the database takes it from ``catalog`` once and holds on to it meanwhile: it is closed
    when nobody holds it any more.
    """

    __slots__ = ("_nested", "_open", "_owner", "_used", "offset", "reference")

    def __init__(self, owner: "Catalogs", reference: CatalogReference, opened: "_Open", offset: int) -> None:
        self._owner = owner
        self._open: _Open | None = opened
        self._nested: dict[bytes, CatalogReference] | None = None
        self._used = True
        self.reference = reference
        self.offset = offset
        """What is added to a row to make an inode number."""

    @property
    def mountpoint(self) -> bytes:
        return self.reference.path

    @property
    def digest(self) -> Digest:
        return self.reference.digest

    @property
    def catalog(self) -> Catalog:
        """The open database. Raises what fetching it raises, if it has to be fetched again."""
        self._used = True
        return (self._open or self._owner.reopen(self)).catalog

    def nested_at(self, path: bytes) -> CatalogReference | None:
        """The catalog that is mounted at ``path``, if one is."""
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
        self._mounts: dict[tuple[bytes, Digest], Mount] = {}
        self._open: deque[Mount] = deque()

    def mount(self, reference: CatalogReference, path: str = "") -> Mount:
        """The catalog of ``reference`` at ``reference.path``; ``path`` if servers have it elsewhere.

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
                known = self._mounts[key] = Mount(self, reference, opened, taken.offset)
                self._opened(known)
            return known

    def by_inode(self, inode: int) -> tuple[Mount, int]:
        """The catalog that an inode belongs to, and its row there. Raises StaleInodeError."""
        found = self._inodes.find(inode)
        mount = self.mount(CatalogReference(found.mountpoint, found.digest, 0))
        return mount, inode - found.offset

    def reopen(self, mount: Mount) -> _Open:
        """Open the database of a mount again that had to give way to others."""
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

    def open_mounts(self) -> list[Mount]:
        """Those whose databases are open."""
        with self._lock:
            return list(self._open)

    def detach(self) -> None:
        """Close all databases that are not in use at this moment; they are opened again when needed."""
        with self._lock:
            while self._open:
                self._open.popleft()._open = None

    def close(self) -> None:
        """Close all of them."""
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
            # It had its digest when it was stored; perhaps the disk has changed it since.
            self._cache.quarantine(reference.digest)
            raise

    def _opened(self, mount: Mount) -> None:
        """One more is open: the one that nobody has used for the longest time may have to give way."""
        self._open.append(mount)
        while len(self._open) > self._limit:
            oldest = self._open.popleft()
            if oldest._used:
                oldest._used = False
                self._open.append(oldest)
            else:
                oldest._open = None
