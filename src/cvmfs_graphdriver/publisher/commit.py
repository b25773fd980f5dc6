"""The end of every change to a repository: history, certificate, metainfo, reflog, and last the manifest.

Owns: that order (CernVM-FS format reference, section 13.3), so that readers see the old revision or the new
one and never a part of it, and the frame of a change that needs no transaction. Must not know: what has
changed below the root catalog.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter
from cvmfs_graphdriver.publisher.repository import REFLOG, Repository
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from cvmfs_graphdriver.repository.history import History
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.metainfo import Metainfo
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog

__all__ = ["Commit", "RepositoryChange", "change_repository"]

_REFLOG_LIMIT: Final = 1 << 30


class Commit:
    """One change on top of ``base``, with scratch files in ``directory``; its caller holds the lock."""

    def __init__(
        self, repository: Repository, base: Manifest, objects: ObjectWriter, directory: Path, *, now: int
    ) -> None:
        self._repository = repository
        self._base = base
        self._objects = objects
        self._directory = directory
        self._now = now
        self.begun = False
        """Whether readers may already see the change; from then on its objects must stay."""

    def run(self, root: CatalogReference, revision: int, change_tags: Callable[[History], None]) -> Manifest:
        """Publish ``root`` as the repository's content, with the tags as ``change_tags`` leaves them.

        Raises StorageError, what reading the base raises, and what ``change_tags`` raises.
        """
        repository, base, now = self._repository, self._base, self._now
        history = self._write_history(change_tags)
        certificate = self._objects.put(*repository.certificate_object())
        metainfo = self._objects.put(self._metainfo(), Suffix.METAINFO)
        reflog = self._write_reflog(
            Reference(root.digest, ReferenceKind.CATALOG, now),
            Reference(certificate, ReferenceKind.CERTIFICATE, now),
            Reference(history, ReferenceKind.HISTORY, now),
            Reference(metainfo, ReferenceKind.METAINFO, now),
        )
        self.begun = True
        manifest = base._replace(
            root=root.digest,
            root_size=root.size,
            ttl=repository.options.ttl,
            revision=revision,
            certificate=certificate,
            history=history,
            metainfo=metainfo,
            reflog=reflog,
            timestamp=max(now, base.timestamp),
            garbage_collectable=repository.options.garbage_collectable,
        )
        repository.storage.flush()  # a manifest must not survive a crash that its objects do not
        repository.put_manifest(manifest)
        repository.storage.flush()
        return manifest

    def _write_history(self, change: Callable[[History], None]) -> Digest:
        previous, path = self._base.history, self._directory / "history"
        if previous:
            path.write_bytes(read_object(self._repository.storage, ObjectName(previous, Suffix.HISTORY)))
            history = History.open(path, fqrn=self._repository.fqrn)
        else:
            history = History.create(path, fqrn=self._repository.fqrn)
        try:
            change(history)
            history.finish(previous=previous)
        finally:
            history.close()
        return self._objects.put(path.read_bytes(), Suffix.HISTORY)

    def _metainfo(self) -> bytes:
        """The same as before; it is stored anew, for it may have a form that replication would break."""
        if self._base.metainfo is None:
            return Metainfo().export()
        return read_object(self._repository.storage, ObjectName(self._base.metainfo, Suffix.METAINFO))

    def _write_reflog(self, *references: Reference) -> Digest:
        """Append to the reflog, store it, and return the digest of its bytes."""
        repository, path = self._repository, self._directory / "reflog"
        old = repository.storage.get(REFLOG, limit=_REFLOG_LIMIT)
        if old is None:
            reflog = Reflog.create(path, fqrn=repository.fqrn)
        else:
            path.write_bytes(old)
            reflog = Reflog.open(path, fqrn=repository.fqrn)
        try:
            for reference in references:
                reflog.add(reference)
            reflog.finish()
        finally:
            reflog.close()
        return repository.put_reflog(path.read_bytes())


@dataclass(frozen=True, slots=True)
class RepositoryChange:
    """What a change without a transaction needs."""

    base: Manifest
    commit: Commit
    objects: ObjectWriter
    directory: Path
    now: int

    @property
    def root(self) -> CatalogReference:
        """The root catalog of ``base``."""
        return CatalogReference(b"", self.base.root, self.base.root_size)


@contextmanager
def change_repository(repository: Repository, wait: float) -> Iterator[RepositoryChange]:
    """A change, under the repository's lock; undone unless it may have become visible."""
    with repository.lock(wait=wait), tempfile.TemporaryDirectory(prefix="change-") as scratch:
        base, now = repository.manifest(), int(repository.clock())
        objects = ObjectWriter(repository.storage, repository.options)
        commit = Commit(repository, base, objects, Path(scratch), now=now)
        try:
            yield RepositoryChange(base, commit, objects, Path(scratch), now)
        finally:
            if not commit.begun:
                objects.discard()
