"""Contents of files: which objects a file consists of, and which servers have them.

Owns: opening an entry, whether it is one object, chunks, or a file on external servers (CernVM-FS format
reference, sections 4.4 and 5). Must not know: how entries are found, caches, HTTP.
"""

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from cvmfs_graphdriver.client.cache.arrival import Wanted
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.client.network.transfer import Transfer
from cvmfs_graphdriver.client.objects.fetcher import Fetcher
from cvmfs_graphdriver.client.objects.openfile import OpenFile
from cvmfs_graphdriver.client.objects.prefetcher import Arrived, Prefetcher, Task
from cvmfs_graphdriver.repository.catalog.entry import Chunk, DirectoryEntry
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.paths import shown

__all__ = ["Contents"]


class Contents:
    """Opens regular files; safe for any number of threads. ``external`` transfers from external servers."""

    def __init__(self, fetcher: Fetcher, prefetcher: Prefetcher, external: Transfer | None) -> None:
        self._fetcher = fetcher
        self._prefetcher = prefetcher
        self._external = external

    def open(
        self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk], *, volatile: bool
    ) -> OpenFile:
        """Open the file at ``path``; a single object is fetched now, chunks when they are read.

        ``volatile`` content is evicted first. Raises TransferError, RepositoryError, CacheError;
        ConfigurationError: the file is external, and no external server is configured.
        """
        if entry.is_external and self._external is None:
            raise ConfigurationError(
                f"the content of {shown(path)} is on external servers; set CVMFS_EXTERNAL_URL"
            )
        suffix = Suffix.PARTIAL if entry.is_chunked else Suffix.NONE
        wanted, transfer = self._pieces_of(path, entry, suffix, volatile=volatile)

        def fetch(piece: Chunk) -> int:
            return self._fetcher.open(wanted(piece), transfer)

        def prefetch(piece: Chunk) -> None:
            self._prefetcher.submit((Task(wanted(piece), _ignore),), transfer)

        if entry.is_chunked:
            return OpenFile(chunks, fetch, prefetch)
        if entry.digest is not None:
            whole = OpenFile((Chunk(0, entry.size, entry.digest),), fetch, prefetch)
            whole.fileno()
            return whole
        if entry.size:
            raise CatalogError(f"{shown(path)} has {entry.size} bytes, but neither an object nor chunks")
        return OpenFile((), fetch, prefetch)

    def cached_path(self, entry: DirectoryEntry) -> str | None:
        """Where a file that consists of one object is in the cache, or would be; None for others."""
        if entry.is_chunked or entry.digest is None:
            return None
        return self._fetcher.path(Wanted(ObjectName(entry.digest), entry.size, compression=entry.compression))

    def prefetch(
        self,
        files: Iterable[tuple[bytes, DirectoryEntry, Sequence[Chunk], Arrived]],
        *,
        volatile: bool = False,
    ) -> int:
        """Begin to fetch files, without waiting; returns how many objects were missing.

        A file is given by its path, its entry, its chunks, and a function that is called with its path in the
        cache as soon as it is there, if it consists of one object.
        """
        count = 0
        usual: list[Task] = []
        for path, entry, chunks, arrived in files:
            if entry.is_external and self._external is None:
                continue
            wanted, transfer = self._pieces_of(
                path, entry, Suffix.PARTIAL if entry.is_chunked else Suffix.NONE, volatile=volatile
            )
            if entry.is_chunked:
                tasks = [Task(wanted(chunk), _ignore) for chunk in chunks]
            elif entry.digest is not None and entry.size:
                tasks = [Task(wanted(Chunk(0, entry.size, entry.digest)), arrived)]
            else:
                continue
            if transfer is None:
                usual += tasks
            else:
                count += self._prefetcher.submit(tasks, transfer)
        return count + self._prefetcher.submit(usual)

    def _pieces_of(
        self, path: bytes, entry: DirectoryEntry, suffix: Suffix, *, volatile: bool
    ) -> tuple[Callable[[Chunk], Wanted], Transfer | None]:
        """What makes a ``Wanted`` of a piece of this file, and its transfer if that is not the usual one."""
        label = f"file {shown(path)}, {'chunk' if suffix else 'object'}"
        transfer = self._external if entry.is_external else None
        external_path = quote(path[1:], safe="/~+:,@!$&'()*;=") if transfer else ""

        def wanted(piece: Chunk) -> Wanted:
            return Wanted(
                ObjectName(piece.digest, suffix),
                piece.size,
                compression=entry.compression,
                path=external_path,
                span=(piece.offset, piece.offset + piece.size) if transfer and suffix else None,
                label=label,
                volatile=volatile,
            )

        return wanted, transfer


def _ignore(_: str) -> None:
    """Nobody needs to be told."""
