"""A tree that is stored but has no place yet.

Owns: making one of entries, with all its catalogs, and abandoning it. Must not know: what it becomes part of,
and whose storage its objects are in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter
from cvmfs_graphdriver.publisher.ingest.tree import TreeIngest
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.storage.interface import ContentReader
from cvmfs_graphdriver.repository.catalog.entry import DirectoryEntry
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter

__all__ = ["StagedTree", "check_place"]


@dataclass(frozen=True, slots=True)
class StagedTree:
    """A tree whose content is stored but which has no place yet; it is mounted once or abandoned."""

    catalog: CatalogWriter
    root: DirectoryEntry
    nested: tuple[CatalogWriter, ...]
    notes: tuple[str, ...]

    @classmethod
    def make(
        cls,
        path: bytes,
        entries: Iterable[tuple[TreeEntry, ContentReader | None]],
        objects: ObjectWriter,
        options: RepositoryOptions,
        new_catalog: Callable[[bytes], CatalogWriter],
        *,
        now: int,
    ) -> Self:
        """Store ``entries`` for the directory at ``path``.

        Raises IngestError, StorageError and whatever ``entries`` raises.
        """
        check_place(path)
        catalog = new_catalog(path)
        try:
            tree = TreeIngest(catalog, objects, options, now=now)
            tree.take(entries)
            root = tree.finish()
            weights = options.catalog_weights
            nested = tree.split(weights, new_catalog) if weights else []
        except BaseException:
            catalog.abandon()
            raise
        return cls(catalog, root, tuple(nested), tuple(tree.notes))

    def abandon(self) -> None:
        """Drop it; its objects stay until their writer discards them."""
        for catalog in (self.catalog, *self.nested):
            catalog.abandon()


def check_place(path: bytes) -> None:
    """Raises PublisherError: ``path`` is not an absolute path below the root."""
    parts = path.split(b"/")
    if parts[0] or len(parts) < 2 or any(part in {b"", b".", b".."} or len(part) > 255 for part in parts[1:]):
        raise PublisherError(f"{path.decode('utf-8', 'replace')!r} is not an absolute path below the root")
