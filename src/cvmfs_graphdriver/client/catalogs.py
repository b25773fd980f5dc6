"""Catalogs in use: fetched on demand, open, each with its range of inode numbers.

Owns: the way from "this catalog at this place" to an open database, and the inode of an entry in it. Must
not know: which revision wants the catalog; one that two revisions share is open once.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.client.cache import Cache
from cvmfs_graphdriver.client.fetcher import Fetcher
from cvmfs_graphdriver.client.inodes import InodeTable
from cvmfs_graphdriver.repository.catalog import Catalog
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import CatalogReference, DirectoryEntry

__all__ = ["Catalogs", "Mount"]

_SIZE_LIMIT = 4 * 1024**3
"""Bytes of a catalog whose size nobody told."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A catalog at a mountpoint; ``offset`` is where its inode numbers begin."""

    mountpoint: bytes
    digest: Digest
    catalog: Catalog
    offset: int

    def inode(self, entry: DirectoryEntry) -> int:
        """The inode number of an entry of this catalog; all members of a hard-link group have the same."""
        row = self.catalog.group_row(entry.hardlink_group) if entry.hardlink_group else entry.row
        return self.offset + row


class Catalogs:
    """All open catalogs of one repository; safe for any number of threads."""

    def __init__(self, fetcher: Fetcher, cache: Cache, inodes: InodeTable) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._inodes = inodes
        self._lock = threading.Lock()
        self._mounts: dict[tuple[bytes, Digest], Mount] = {}

    def mount(self, reference: CatalogReference, path: str = "") -> Mount:
        """The catalog of ``reference`` at ``reference.path``; ``path`` if servers have it elsewhere."""
        key = (reference.path, reference.digest)
        with self._lock:
            known = self._mounts.get(key)
        if known is not None:
            return known
        name = ObjectName(reference.digest, Suffix.CATALOG)
        size = reference.size
        descriptor = self._fetcher.open(name, size=size or _SIZE_LIMIT, exact=bool(size), path=path)
        try:
            catalog = Catalog.open(Path(f"/proc/self/fd/{descriptor}"), mountpoint=reference.path)
        finally:
            os.close(descriptor)
        taken = self._inodes.range_of(reference.path, reference.digest, catalog.max_row)
        mount = Mount(reference.path, reference.digest, catalog, taken.offset)
        with self._lock:
            return self._mounts.setdefault(key, mount)

    def by_inode(self, inode: int) -> tuple[Mount, int]:
        """The catalog that an inode belongs to, and its row there. Raises StaleInodeError."""
        found = self._inodes.find(inode)
        mount = self.mount(CatalogReference(found.mountpoint, found.digest, 0))
        return mount, inode - found.offset

    def loaded(self) -> int:
        """How many catalogs are open."""
        with self._lock:
            return len(self._mounts)

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            mounts, self._mounts = list(self._mounts.values()), {}
        for mount in mounts:
            mount.catalog.close()
