"""Making trees ready for a transaction, without the repository's lock.

Owns: a spool, in which everything is compressed and stored. The repository gets its objects only from a
transaction, under the lock. So no garbage collection can take them for garbage, nobody else can rely on them
too early, and what is refused leaves no trace. Must not know: where entries come from.
"""

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter
from cvmfs_graphdriver.publisher.ingest.staged_tree import StagedTree
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.interface import ContentReader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter

__all__ = ["Staging"]


class Staging:
    """Trees that are being made ready, within its ``with`` block, in which their transaction must end."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._catalogs: list[CatalogWriter] = []

    def __enter__(self) -> Self:
        repository = self._repository
        with ExitStack() as stack:
            self._now = int(repository.clock())
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="staging-")))
            self.spool = stack.enter_context(repository.storage.spool())
            self.objects = stack.enter_context(ObjectWriter(self.spool, repository.options))
            stack.callback(self._abandon)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def stage(self, path: bytes, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> StagedTree:
        """Store ``entries`` for the directory at ``path``; nothing stays of what fails.

        Raises IngestError, StorageError and whatever ``entries`` raises.
        """
        before = self.objects.mark()
        try:
            return StagedTree.make(
                path, entries, self.objects, self._repository.options, self._new_catalog, now=self._now
            )
        except BaseException:
            self.objects.discard(before)
            raise

    def flush(self) -> None:
        """Write it all to the disk, which takes time better spent without the lock. Raises StorageError."""
        self.spool.flush()

    def _new_catalog(self, path: bytes) -> CatalogWriter:
        file = self._directory / f"catalog-{len(self._catalogs)}"
        self._catalogs.append(CatalogWriter.create(file, mountpoint=path, now=self._now))
        return self._catalogs[-1]

    def _abandon(self) -> None:
        for catalog in self._catalogs:
            catalog.abandon()
