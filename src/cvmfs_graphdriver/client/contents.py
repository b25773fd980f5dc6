"""Content of files: which objects a file consists of, and from which servers they come.

Owns: opening an entry, be it one object, chunks, or a file on external servers (CernVM-FS format reference,
sections 4.4 and 5). Must not know: how entries are found, caches, HTTP.
"""

import os
from collections.abc import Callable, Sequence
from urllib.parse import quote

from cvmfs_graphdriver.client.background import Background
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.client.fetcher import Fetcher, Wanted
from cvmfs_graphdriver.client.openfile import OpenFile
from cvmfs_graphdriver.client.paths import shown
from cvmfs_graphdriver.client.transfer import Transfer
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import Chunk, DirectoryEntry
from cvmfs_graphdriver.repository.errors import CatalogError

__all__ = ["Contents"]

_PREFETCHERS = 4


class Contents:
    """Opens regular files; safe for any number of threads. ``external`` leads to external servers."""

    def __init__(self, fetcher: Fetcher, external: Transfer | None) -> None:
        self._fetcher = fetcher
        self._external = external
        self._prefetchers = Background(_PREFETCHERS, "prefetch")

    def open(
        self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk], *, volatile: bool
    ) -> OpenFile:
        """The file at ``path``; one whole object is fetched now, chunks when they are read.

        ``volatile`` content is the first to leave the cache.

        Raises TransferError, RepositoryError, CacheError; ConfigurationError: the file is external, and no
        external server is configured.
        """
        if entry.is_external and self._external is None:
            raise ConfigurationError(
                f"the content of {shown(path)} is on external servers; set CVMFS_EXTERNAL_URL"
            )
        if entry.is_chunked:
            fetch = self._fetch_from(path, entry, Suffix.PARTIAL, volatile=volatile)
            return OpenFile(chunks, fetch, self._prefetch(fetch))
        fetch = self._fetch_from(path, entry, Suffix.NONE, volatile=volatile)
        if entry.digest is not None:
            whole = OpenFile((Chunk(0, entry.size, entry.digest),), fetch, self._prefetch(fetch))
            whole.fileno()
            return whole
        if entry.size:
            raise CatalogError(f"{shown(path)} has {entry.size} bytes, but neither an object nor chunks")
        return OpenFile((), fetch, self._prefetch(fetch))

    def prefetch(self, path: bytes, entry: DirectoryEntry, *, volatile: bool = False) -> bool:
        """Begin to fetch a file that is one object, and do not wait; says whether there was a need to."""
        if entry.is_chunked or entry.digest is None or not entry.size or self._fetcher.has(entry.digest):
            return False
        fetch = self._fetch_from(path, entry, Suffix.NONE, volatile=volatile)
        self._prefetch(fetch)(Chunk(0, entry.size, entry.digest))
        return True

    def close(self) -> None:
        """Fetch nothing ahead any more."""
        self._prefetchers.close()

    def _fetch_from(
        self, path: bytes, entry: DirectoryEntry, suffix: Suffix, *, volatile: bool
    ) -> Callable[[Chunk], int]:
        """How to fetch a piece of this file."""
        label = f"file {shown(path)}, {'chunk' if suffix else 'object'}"
        transfer = self._external if entry.is_external else None
        external_path = quote(path[1:], safe="/~+:,@!$&'()*;=") if transfer else ""

        def fetch(piece: Chunk) -> int:
            wanted = Wanted(
                ObjectName(piece.digest, suffix),
                piece.size,
                compression=entry.compression,
                path=external_path,
                span=(piece.offset, piece.offset + piece.size) if transfer and suffix else None,
                label=label,
                volatile=volatile,
            )
            return self._fetcher.open(wanted, transfer)

        return fetch

    def _prefetch(self, fetch: Callable[[Chunk], int]) -> Callable[[Chunk], None]:
        def prefetch(piece: Chunk) -> None:
            self._prefetchers.submit(lambda: _fetch_ahead(fetch, piece))

        return prefetch


def _fetch_ahead(fetch: Callable[[Chunk], int], piece: Chunk) -> None:
    """Fetch into the cache; whoever needs the piece will see the error, if there is one."""
    try:
        os.close(fetch(piece))
    except CvmfsGraphdriverError:
        return
