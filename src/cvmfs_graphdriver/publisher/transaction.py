"""A transaction: changes to a repository's tree that become visible together, as one new revision.

This is the place to publish a directory: ``Transaction.ingest``, then ``publish``.

Owns: what may be changed before publication, and what is undone without it. A transaction that ends without
``publish`` deletes what it stored; one that is killed leaves unreferenced objects for garbage collection.
Must not know: where entries come from, what follows the catalogs (``commit``).
"""

import stat
import tempfile
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.publisher.commit import Commit
from cvmfs_graphdriver.publisher.contents import read_object
from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter
from cvmfs_graphdriver.publisher.ingest.open_catalogs import OpenCatalogs
from cvmfs_graphdriver.publisher.ingest.staged_tree import StagedTree, check_place
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.staging import Staging
from cvmfs_graphdriver.publisher.storage.interface import ContentReader
from cvmfs_graphdriver.publisher.tags import move_trunk
from cvmfs_graphdriver.repository.catalog.entry import (
    CATALOG_MARKER,
    CatalogReference,
    Compression,
    DirectoryEntry,
    EntryFlag,
)
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.history import History, Tag, check_tag_name
from cvmfs_graphdriver.repository.manifest import Manifest

__all__ = ["Transaction"]


class Transaction:
    """Holds the repository's lock within its ``with`` block. Several threads may ingest at once.

    ``wait`` is how many seconds to wait for another publisher.
    """

    def __init__(self, repository: Repository, *, wait: float = 0.0) -> None:
        self._repository = repository
        self._wait = wait
        self._lock = threading.Lock()
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        repository = self._repository
        with ExitStack() as stack:
            stack.enter_context(repository.lock(wait=self._wait))
            self._base = repository.manifest()
            self._now = int(repository.clock())
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="publish-")))
            self._objects = ObjectWriter(repository.storage, repository.options)
            self._commit = Commit(repository, self._base, self._objects, self._directory, now=self._now)
            stack.callback(self._give_up)
            stack.enter_context(self._objects)
            self._catalogs = stack.enter_context(
                OpenCatalogs(
                    CatalogReference(b"", self._base.root, self._base.root_size),
                    directory=self._directory,
                    fetch=repository.fetch_catalog,
                    now=self._now,
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _give_up(self) -> None:
        """Restore the storage, unless the new revision may already be visible."""
        if not self._commit.begun:
            self._objects.discard()

    @property
    def base(self) -> Manifest:
        """The revision it is based on."""
        return self._base

    @property
    def objects(self) -> ObjectWriter:
        """The writer of its objects, which counts what was stored."""
        return self._objects

    def lookup(self, path: bytes) -> DirectoryEntry | None:
        """The entry at an absolute path, as changed so far."""
        with self._lock:
            return self._catalogs.lookup(path)

    def listing(self, path: bytes) -> list[DirectoryEntry]:
        """The entries of a directory, as changed so far; empty if there is no such directory."""
        with self._lock:
            return self._catalogs.listing(path)

    def ingest(self, path: bytes, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> None:
        """Replace what is at ``path`` with a directory of ``entries``, in a nested catalog of its own.

        Raises IngestError, StorageError and whatever ``entries`` raises; nothing has changed then.
        """
        staged = self.stage(path, entries)
        try:
            self.mount(staged)
        except BaseException:
            staged.abandon()
            raise

    def stage(self, path: bytes, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> StagedTree:
        """Store ``entries`` for the directory at ``path``; they appear there when the result is mounted.

        Raises IngestError, StorageError and whatever ``entries`` raises.
        """
        return StagedTree.make(
            path,
            entries,
            self._objects,
            self._repository.options,
            self._catalogs.new_catalog,
            now=self._now,
        )

    def adopt(self, staging: Staging) -> None:
        """Take over the objects of trees that were staged without the lock. Raises StorageError."""
        self._objects.adopt(staging.objects, staging.spool)

    def mount(self, staged: StagedTree) -> None:
        """Put a staged tree in its place, replacing what is there.

        Raises PublisherError: something on the way is not a directory.
        """
        with self._lock:
            self._catalogs.mount(staged.catalog, staged.root)
            for one in staged.nested:
                self._catalogs.adopt(one)
            self.notes += staged.notes

    def write_file(self, path: bytes, data: bytes) -> None:
        """Write a small file, owned by root and readable by all, to ``path``, creating directories.

        Raises StorageError; PublisherError: something on the way is not a directory.
        """
        check_place(path)
        entry = self._small_file(path.rpartition(b"/")[2], data)
        with self._lock:
            self._catalogs.put(path, entry)

    def write_link(self, path: bytes, target: bytes) -> None:
        """Write a symbolic link, as ``write_file`` does. Raises PublisherError."""
        check_place(path)
        entry = DirectoryEntry(
            path.rpartition(b"/")[2],
            stat.S_IFLNK | 0o777,
            len(target),
            self._now,
            flags=EntryFlag.FILE | EntryFlag.SYMLINK,
            symlink=target,
        )
        with self._lock:
            self._catalogs.put(path, entry)

    def make_catalog(self, path: bytes) -> None:
        """Make an empty directory with a catalog of its own, unless there is something at ``path``.

        It also gets the stock tools' marker, visible, so it must not be a part of an image. Raises as
        ``ingest`` does.
        """
        if self.lookup(path) is None:
            self.ingest(path, ())
            self.write_file(path + b"/" + CATALOG_MARKER, b"")

    def split(self, path: bytes, *, most: int, least: int) -> None:
        """If the catalog at ``path`` has more than ``most`` entries, make catalogs of directories in it.

        Those with at least ``least`` entries get one each, with a marker as ``make_catalog`` writes it.
        """
        with self._lock:
            self._catalogs.split(path, most, least, lambda: self._small_file(CATALOG_MARKER, b""))

    def _small_file(self, name: bytes, data: bytes) -> DirectoryEntry:
        return DirectoryEntry(
            name,
            stat.S_IFREG | 0o644,
            len(data),
            self._now,
            flags=EntryFlag.FILE,
            digest=self._objects.put(data, Suffix.NONE),
            hash_algorithm=self._repository.options.algorithm,
        )

    def read_file(self, path: bytes) -> bytes | None:
        """A small file, as changed so far; None if there is none.

        Raises PublisherError: ``write_file`` did not write it; and whatever reading an object raises.
        """
        entry = self.lookup(path)
        if entry is None:
            return None
        if entry.digest is None or entry.compression is not Compression.ZLIB:
            raise PublisherError(
                f"{path.decode('utf-8', 'replace')} is not a small file that the publisher wrote"
            )
        return read_object(self._repository.storage, ObjectName(entry.digest))

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path`` and everything below it. Raises PublisherError: there is nothing."""
        check_place(path)
        with self._lock:
            self._catalogs.remove(path)

    # Publishing

    def publish(self, *, tag: str = "", description: str = "") -> Manifest:
        """Publish it as the newest revision. Raises StorageError, PublisherError."""
        if self._commit.begun:
            raise PublisherError("this transaction has already been published")
        if tag:
            check_tag_name(tag)
        repository, now = self._repository, self._now
        revision = self._base.revision + 1
        with self._lock:
            root = self._catalogs.finish(
                revision=revision,
                ttl=repository.options.ttl,
                store=lambda path: self._objects.put(path.read_bytes(), Suffix.CATALOG),
            )

        def move_tags(history: History) -> None:
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            names = {tag: description} if tag else {}
            if repository.options.auto_tag:
                names[_free_name(history, f"generic-{stamp}")] = ""
            for name, text in names.items():
                history.put(Tag(name, root.digest, revision, now, text, root.size))
            move_trunk(history, root, revision, now=now)

        return self._commit.run(root, revision, move_tags)


def _free_name(history: History, name: str) -> str:
    """``name``, with a number inserted if such a tag already exists."""
    taken = {tag.name for tag in history.tags()}
    kind, _, stamp = name.partition("-")
    number = 1
    while name in taken:
        name = f"{kind}_{number}-{stamp}"
        number += 1
    return name
