"""What a repository's server does for the EROFS plane besides presenting a tree.

Owns: bringing an object into the cache and linking it to where overlayfs finds it, and describing the catalog
that lists a directory. Must not know: FUSE, images.
"""

import errno
import logging
import os
import threading
import time
from contextlib import suppress

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.counters import Count
from cvmfs_graphdriver.client.errors import CacheError
from cvmfs_graphdriver.client.tree.revision import Node, Revision
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.planes.erofs.links import Links
from cvmfs_graphdriver.planes.erofs.objectnames import StoredObject
from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.repository.digest import Digest, ObjectName

__all__ = ["Fetching", "describe_catalog"]

_log = logging.getLogger(__name__)

_TRIES = 3
_PERIOD = 120.0
_PAUSE = 1.0


class Fetching:
    """Makes objects of one repository available to overlayfs; safe for any number of threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cache = client.cache
        self._next_search = 0.0
        self._links = Links(self._cache.directory, client.settings.fqrn)

    def fetch(self, wanted: StoredObject) -> None:
        """Make sure that the object is in the cache and linked.

        Raises PlaneError, which names a file with this content; TransferError, RepositoryError, CacheError if
        none is known.
        """
        try:
            self._fetch(wanted)
        except CvmfsGraphdriverError as error:
            path = self._path_with(wanted.digest)
            if not path:
                raise
            raise PlaneError(f"{os.fsdecode(path)}: {error}") from error

    def _path_with(self, digest: Digest) -> bytes:
        """The path of a file with this content, if an open catalog has one; looked for once a second."""
        if time.monotonic() < self._next_search:
            return b""
        self._next_search = time.monotonic() + _PAUSE
        for mount in self._client.catalogs.open_mounts():
            with suppress(CvmfsGraphdriverError):
                if path := mount.catalog.path_with(digest):
                    return path
        return b""

    def _fetch(self, wanted: StoredObject) -> None:
        name = ObjectName(wanted.digest)
        for _ in range(_TRIES):
            self._client.counters.add(Count.OPENS)
            os.close(self._client.open_object(Wanted(name, wanted.size, compression=wanted.compression)))
            try:
                self._links.add(wanted, self._cache.path(wanted.digest, wanted.compression))
            except FileNotFoundError:
                continue  # evicted since
            except OSError as error:
                if error.errno != errno.ENOSPC or self._cache.eviction is None:
                    raise CacheError(f"cannot link to {name} in the cache: {error.strerror}") from error
                self._cache.relieve_disk()
            else:
                return
        raise CacheError(f"object {name} disappears from the cache as soon as it is there")

    def tidy(self, stop: threading.Event) -> None:
        """Remove links that are no longer needed, until ``stop`` is set."""
        while not stop.wait(_PERIOD):
            try:
                self._links.sweep()
            except OSError as error:
                _log.warning("cannot tidy up the links of %s: %s", self._client.settings.fqrn, error)


def describe_catalog(revision: Revision, node: Node) -> bytes:
    """The catalog that lists a directory: digest, inode offset and mountpoint, one per line."""
    mount = revision.mount_of(node)
    return b"%b\n%d\n%b" % (mount.digest.text.encode(), mount.offset, mount.mountpoint)
