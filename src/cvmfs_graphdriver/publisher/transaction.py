"""A transaction: changes to a repository's tree that appear together, as one new revision.

Owns: which catalogs change, the counters that go up the tree, and the order in which a revision is made
(CernVM-FS format reference, section 13.3): objects, catalogs from the leaves to the root, history,
certificate and metainfo, reflog, and last the manifest. A transaction that ends without ``publish``, in
whatever way, leaves unreferenced objects behind and nothing else. Must not know: where entries come from.
"""

import json
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.ingest import IngestedTree, directory_entry
from cvmfs_graphdriver.publisher.objects import ObjectWriter
from cvmfs_graphdriver.publisher.repository import REFLOG, Repository
from cvmfs_graphdriver.publisher.tree_entry import ContentReader, TreeEntry
from cvmfs_graphdriver.repository.catalog_writer import CatalogWriter
from cvmfs_graphdriver.repository.counters import Tally
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.entry import CatalogReference, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.history import TRUNK, TRUNK_PREVIOUS, History, Tag
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog

__all__ = ["Transaction"]

_REFLOG_LIMIT = 1 << 30


class _OpenCatalog:
    """A catalog that this transaction changes, or has made."""

    def __init__(self, writer: CatalogWriter, previous: Digest | None, before: Tally) -> None:
        self.writer = writer
        self.previous = previous
        self.before = before


class Transaction:
    """Holds the repository's lock from ``with`` to its end."""

    def __init__(self, repository: Repository, *, wait: float) -> None:
        self._repository = repository
        self._wait = wait
        self._stack = ExitStack()
        self._catalogs: dict[bytes, _OpenCatalog] = {}
        self._published = False
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            lock: AbstractContextManager[None] = self._repository.storage.lock(wait=self._wait)
            stack.enter_context(lock)
            self._base = self._repository.manifest()
            self._now = int(self._repository.clock())
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="publish-")))
            self._objects = stack.enter_context(
                ObjectWriter(self._repository.storage, self._repository.options)
            )
            stack.callback(self._abandon)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _abandon(self) -> None:
        for catalog in self._catalogs.values():
            catalog.writer.abandon()

    @property
    def objects(self) -> ObjectWriter:
        """What was stored so far."""
        return self._objects

    # Looking

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at an absolute path as the transaction has it by now."""
        return self._owner(path).writer.lookup(path)

    # Changing

    def ingest(self, path: bytes, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> None:
        """Make the directory at ``path`` a nested catalog that holds ``entries``, in place of what was there.

        Raises IngestError, StorageError; the transaction must then be given up.
        """
        if not path.startswith(b"/") or b"" in path[1:].split(b"/"):
            raise PublisherError(f"{path!r} is no absolute path of a directory")
        tree = IngestedTree(self._objects, self._repository.options, now=self._now)
        tree.take(entries)
        self.notes += tree.notes
        if self.lookup(path) is not None:
            self.remove(path)
        parent = self._make_directories(path.rpartition(b"/")[0])
        owner = self._owner(parent).writer
        writer = CatalogWriter.create(self._file(), mountpoint=path, now=self._now)
        self._catalogs[path] = _OpenCatalog(writer, None, Tally())
        for at, entry, chunks in tree.entries(path):
            if at == path:
                owner.add(path, entry._replace(flags=entry.flags | EntryFlag.NESTED_MOUNTPOINT))
                entry = entry._replace(flags=entry.flags | EntryFlag.NESTED_ROOT)  # noqa: PLW2901
            writer.add(at, entry, chunks)
        writer.flush()
        self._touch(parent, links=1)

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path``, with everything below it. Raises PublisherError: there is nothing."""
        owner = self._owner(path.rpartition(b"/")[0]) if path else None
        entry = owner.writer.lookup(path) if owner else None
        if owner is None or entry is None:
            raise PublisherError(f"there is nothing at {path.decode('utf-8', 'replace')} to remove")
        self._remove(owner, path, entry)
        self._touch(path.rpartition(b"/")[0], links=-1 if entry.is_directory else 0)

    def _remove(self, owner: _OpenCatalog, path: bytes, entry: DirectoryEntry) -> None:
        if EntryFlag.NESTED_MOUNTPOINT in entry.flags:
            self._remove_nested(owner, path)
        elif entry.is_directory:
            for child in owner.writer.listing(path):
                self._remove(owner, path + b"/" + child.name, child)
        owner.writer.remove(path)

    def _remove_nested(self, owner: _OpenCatalog, path: bytes) -> None:
        """Forget a nested catalog and everything below it, and that it counted."""
        nested = self._catalogs.get(path)
        if nested is None:
            nested = self._open_reference(next(r for r in owner.writer.nested() if r.path == path))
            nested.writer.abandon()
        for at in [at for at in self._catalogs if _within(at, path)]:
            self._catalogs.pop(at).writer.abandon()
        if nested.previous is not None:
            owner.writer.remove_nested(path)
            _add(owner.writer.counters.subtree, nested.before, -1)

    def _make_directories(self, path: bytes) -> bytes:
        """Make sure that ``path`` is a directory."""
        if not path:
            return path
        entry = self.lookup(path)
        if entry is None:
            parent = self._make_directories(path.rpartition(b"/")[0])
            self._owner(parent).writer.add(path, directory_entry(path.rpartition(b"/")[2], now=self._now))
            self._touch(parent, links=1)
        elif not entry.is_directory:
            raise PublisherError(f"{path.decode('utf-8', 'replace')} is in the way: it is no directory")
        return path

    def _touch(self, path: bytes, *, links: int) -> None:
        """A directory got or lost an entry. Where it is a mountpoint, both sides are kept in step."""
        inner = self._owner(path).writer
        writers = [inner]
        if path and inner.mountpoint == path:
            writers.append(self._owner(path.rpartition(b"/")[0]).writer)
        for writer in writers:
            entry = writer.lookup(path)
            if entry is not None:
                changed = entry._replace(mtime=self._now, mtime_ns=None, linkcount=entry.linkcount + links)
                writer.replace(path, changed)

    # Catalogs

    def _owner(self, path: bytes) -> _OpenCatalog:
        """The catalog that lists the directory at ``path``, opened for writing with all above it."""
        catalog = self._catalogs.get(b"") or self._open_root()
        while True:
            here = catalog.writer.mountpoint
            deeper = [at for at in self._catalogs if _within(path, at) and len(at) > len(here)]
            if deeper:
                catalog = self._catalogs[min(deeper, key=len)]
                continue
            below = [r for r in catalog.writer.nested() if _within(path, r.path)]
            if not below:
                return catalog
            reference = min(below, key=lambda r: len(r.path))
            catalog = self._catalogs[reference.path] = self._open_reference(reference)

    def _open_root(self) -> _OpenCatalog:
        reference = CatalogReference(b"", self._base.root, self._base.root_size)
        catalog = self._catalogs[b""] = self._open_reference(reference)
        return catalog

    def _open_reference(self, reference: CatalogReference) -> _OpenCatalog:
        name = ObjectName(reference.digest, Suffix.CATALOG)
        file = self._repository.unpack(name, self._directory)
        writer = CatalogWriter.open(file, mountpoint=reference.path)
        return _OpenCatalog(writer, reference.digest, writer.counters.total)

    def _file(self) -> Path:
        return self._directory / f"new-{len(list(self._directory.iterdir()))}"

    # Publishing

    def publish(self, *, tag: str = "", description: str = "") -> Manifest:
        """Make the next revision of it, and the newest. Raises StorageError, PublisherError."""
        if self._published:
            raise PublisherError("this transaction is published already")
        repository, now = self._repository, self._now
        root = self._write_catalogs()
        revision = self._base.revision + 1
        history = self._write_history(root, revision, tag, description)
        certificate = self._objects.put(*repository.certificate_object())
        metainfo = self._base.metainfo or self._objects.put(_metainfo(), Suffix.METAINFO)
        new = [
            Reference(root.digest, ReferenceKind.CATALOG, now),
            Reference(certificate, ReferenceKind.CERTIFICATE, now),
            Reference(history, ReferenceKind.HISTORY, now),
            Reference(metainfo, ReferenceKind.METAINFO, now),
        ]
        manifest = replace(
            self._base,
            root=root.digest,
            root_size=root.size,
            ttl=repository.options.ttl,
            revision=revision,
            certificate=certificate,
            history=history,
            metainfo=metainfo,
            reflog=self._write_reflog(new),
            timestamp=max(now, self._base.timestamp),
            garbage_collectable=repository.options.garbage_collectable,
        )
        repository.put_manifest(manifest)
        self._published = True
        return manifest

    def _write_catalogs(self) -> CatalogReference:
        """Store all changed catalogs, the deepest first; returns the root's reference."""
        self._owner(b"")
        revision = self._base.revision + 1
        for path in sorted(self._catalogs, key=lambda p: p.count(b"/") if p else -1, reverse=True):
            catalog = self._catalogs[path]
            writer = catalog.writer
            if not path:
                writer.set_property("TTL", str(self._repository.options.ttl))
            writer.advance(now=self._now, previous=catalog.previous, revision=None if path else revision)
            total = writer.counters.total
            size = writer.finish()
            digest = self._objects.put(Path(writer.path).read_bytes(), Suffix.CATALOG)
            reference = CatalogReference(path, digest, size)
            if not path:
                return reference
            above = self._catalogs[self._mountpoint_above(path)].writer
            above.put_nested(reference)
            _add(above.counters.subtree, total, 1)
            _add(above.counters.subtree, catalog.before, -1)
        raise AssertionError

    def _mountpoint_above(self, path: bytes) -> bytes:
        return max((at for at in self._catalogs if at != path and _within(path, at)), key=len)

    def _write_history(self, root: CatalogReference, revision: int, tag: str, description: str) -> Digest:
        repository, base = self._repository, self._base
        if base.history:
            path = repository.unpack(ObjectName(base.history, Suffix.HISTORY), self._directory)
            history = History.open(path, fqrn=repository.fqrn)
        else:
            path = self._file()
            history = History.create(path, fqrn=repository.fqrn)
        trunk = history.tag(TRUNK)
        if trunk:
            history.put(replace(trunk, name=TRUNK_PREVIOUS, description="default undo target"))
        here = Tag(TRUNK, root.digest, revision, self._now, "current HEAD", root.size)
        if repository.options.auto_tag:
            stamp = datetime.fromtimestamp(self._now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            history.put(replace(here, name=_free_name(history, f"generic-{stamp}"), description=""))
        if tag:
            history.put(replace(here, name=tag, description=description))
        history.put(here)
        history.finish(previous=base.history)
        return self._objects.put(path.read_bytes(), Suffix.HISTORY)

    def _write_reflog(self, new: list[Reference]) -> Digest:
        """Append to the reflog and store it; returns the digest of its bytes."""
        repository = self._repository
        old = repository.storage.get(REFLOG, limit=_REFLOG_LIMIT)
        path = self._file()
        if old is None:
            reflog = Reflog.create(path, fqrn=repository.fqrn)
        else:
            path.write_bytes(old)
            reflog = Reflog.open(path, fqrn=repository.fqrn)
        for reference in new:
            reflog.add(reference)
        reflog.finish()
        data = path.read_bytes()
        repository.storage.put(REFLOG, data)
        return Digest.of(data, repository.options.algorithm)


def _within(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def _add(tally: Tally, other: Tally, sign: int) -> None:
    for field in fields(Tally):
        setattr(tally, field.name, getattr(tally, field.name) + sign * getattr(other, field.name))


def _free_name(history: History, name: str) -> str:
    """``name``, or with a number in it where there is such a tag already."""
    taken = {tag.name for tag in history.tags()}
    kind, _, stamp = name.partition("-")
    number = 1
    while name in taken:
        name = f"{kind}_{number}-{stamp}"
        number += 1
    return name


def _metainfo() -> bytes:
    """The description of a repository whose owner has not said anything."""
    empty = dict.fromkeys(("administrator", "email", "organisation", "description", "url"), "")
    document = {**empty, "recommended-stratum0": "", "recommended-stratum1s": [], "custom": {}}
    return json.dumps(document, indent=2).encode() + b"\n"
