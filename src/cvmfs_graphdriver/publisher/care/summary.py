"""A summary of a repository for people: its newest revision in a few numbers.

Owns: where the numbers come from: the catalogs' counters, nothing is counted again. Must not know: how they
are shown.
"""

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.tags import list_tags
from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.counters import Tally
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True, slots=True)
class Summary:
    """``contents`` are the totals of the newest revision over all its catalogs."""

    location: str
    manifest: Manifest
    whitelist: Whitelist
    tags: int
    contents: Tally


def summarise(repository: Repository) -> Summary:
    """Summarise the newest revision. Raises PublisherError and whatever reading the repository raises."""
    manifest = repository.manifest()
    with tempfile.TemporaryDirectory(prefix="summary-") as scratch:
        root = repository.unpack(ObjectName(manifest.root, Suffix.CATALOG), Path(scratch))
        with closing(Catalog.open(root, mountpoint=b"")) as catalog:
            contents = catalog.counters.total
    return Summary(
        location=repository.storage.location,
        manifest=manifest,
        whitelist=repository.whitelist(),
        tags=len(list_tags(repository)),
        contents=contents,
    )
