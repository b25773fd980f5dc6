"""Splitting a catalog that is too big for clients to load as a whole (format reference, section 4.1).

Owns: which directories of a big tree become catalogs of their own, and moving their content. Weights are
counted as by the stock server: a catalog's weight is its number of entries. Must not know: where catalogs are
stored, what follows for the catalogs above.

A hard-link group cannot lie in two catalogs, so no cut goes through one: directories in the way stay. Each
new catalog has a hidden marker (docs/adr/0023-hidden-catalog-markers.md), unless the tree has a file of that
name there.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from cvmfs_graphdriver.publisher.options import Weights
from cvmfs_graphdriver.repository.catalog.entry import CATALOG_MARKER, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.catalog.loader import CatalogLoader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter

__all__ = ["split_catalog"]


@dataclass(slots=True)
class _Plan:
    """What is known of the directories of a tree, by path."""

    children: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    weights: Counter[bytes] = field(default_factory=Counter)
    tied: set[bytes] = field(default_factory=set)
    cuts: list[bytes] = field(default_factory=list)

    def tie(self, places: list[bytes]) -> None:
        """Forbid cuts between these directories, in all of which one file has names."""
        common = os.path.commonpath(places)
        for place in places:
            at = place
            while at != common:
                self.tied.add(at)
                at = at.rpartition(b"/")[0]

    def cut(self, top: bytes, weights: Weights) -> None:
        """Choose directories, deepest first, until every catalog is as light as required or possible."""
        for path in sorted(self.weights, key=lambda path: path.count(b"/"), reverse=True):
            light = [child for child in self.children[path] if child not in self.tied]
            self.weights[path] += sum(self.weights[child] for child in self.children[path])
            for child in sorted(light, key=lambda child: (-self.weights[child], child)):
                if self.weights[path] <= weights.most or self.weights[child] < weights.least:
                    break
                self.weights[path] -= self.weights[child]
                self.weights[child] = 0
                self.cuts.append(child)
            if path == top:
                break


def split_catalog(
    catalog: CatalogWriter,
    loader: CatalogLoader,
    weights: Weights,
    new_catalog: Callable[[bytes], CatalogWriter],
    marker: DirectoryEntry,
) -> list[CatalogWriter]:
    """Move directories of a settled ``catalog`` into new ones with a ``marker`` each, if it is too big.

    Gives these. The directories' entries in ``catalog`` are mountpoints then, and its counters are right.
    """
    top = catalog.mountpoint
    if catalog.counters.self_.entries <= weights.most:
        return []
    plan = _Plan()
    groups: dict[int, set[bytes]] = defaultdict(set)
    pending = [top]
    while pending:
        path = pending.pop()
        entries = catalog.listing(path)
        plan.weights[path] = len(entries)
        for entry in entries:
            if entry.is_directory:
                plan.children[path].append(path + b"/" + entry.name)
            elif entry.hardlink_group:
                groups[entry.hardlink_group].add(path)
        pending += plan.children[path]
    for places in groups.values():
        if len(places) > 1:
            plan.tie(sorted(places))
    plan.cut(top, weights)
    made = [_move(catalog, loader, path, new_catalog(path), marker) for path in plan.cuts]
    catalog.flush()
    loader.settle()
    return made


def _move(
    catalog: CatalogWriter, loader: CatalogLoader, path: bytes, target: CatalogWriter, marker: DirectoryEntry
) -> CatalogWriter:
    """Move what is in the directory at ``path`` to a catalog of its own, where it is the root."""
    root = _found(catalog, path)
    target.add(path, root._replace(flags=root.flags | EntryFlag.NESTED_ROOT))
    pending = [path]
    while pending:
        directory = pending.pop()
        for entry in catalog.listing(directory):
            at = directory + b"/" + entry.name
            target.add(at, entry, catalog.chunks(at, entry) if entry.is_chunked else ())
            if entry.is_directory and EntryFlag.NESTED_MOUNTPOINT not in entry.flags:
                pending.append(at)
        loader.clear(directory)
    at = path + b"/" + CATALOG_MARKER
    if target.lookup(at) is None:
        target.add(at, marker._replace(mtime=root.mtime))
    catalog.replace(path, root._replace(flags=root.flags | EntryFlag.NESTED_MOUNTPOINT))
    return target


def _found(catalog: CatalogWriter, path: bytes) -> DirectoryEntry:
    entry = catalog.lookup(path)
    if entry is None:
        raise AssertionError("a directory that was listed exists")
    return entry
