"""Turning a stream of entries into a catalog: what publishing a directory comes down to.

Owns: what such a stream means – later entries replace earlier ones, missing directories are created, names
that share an inode become a hard-link group – and which entry flags follow (CernVM-FS format reference,
sections 3.5, 3.6 and 14). Must not know: where catalogs and objects are stored, what kind of stream it was.

The stream has the semantics of tar: an entry may lie below a symbolic link that came earlier, and then
belongs where the link points, resolved from the root of the tree. Entries reach the catalog in the order of
the stream, some thousands behind it, since their content is being stored meanwhile; only directories stay in
memory to the end, when their link counts are known. A created directory is as old as the entry that required
it, so that equal streams make equal catalogs.

Hard links: a group is local to a catalog, and nothing that reads catalogs asks its members to be in one
directory, so groups across directories are kept, as a container's files need it. The stock server cannot
write those; ``break_cross_directory_hardlinks`` gives what it does: one group for each directory.

A catalog gets the marker that stock tools look for, hidden, unless the tree has a file of that name at its
root, which they take for one as well (docs/adr/0023-hidden-catalog-markers.md).
"""

import os
import stat
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cvmfs_graphdriver.publisher.errors import IngestError
from cvmfs_graphdriver.publisher.ingest.autocatalogs import split_catalog
from cvmfs_graphdriver.publisher.ingest.objects import ObjectWriter, PendingContent
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.options import RepositoryOptions, Weights
from cvmfs_graphdriver.publisher.storage.interface import ContentReader
from cvmfs_graphdriver.repository.catalog.entry import (
    CATALOG_MARKER,
    Chunk,
    Compression,
    DirectoryEntry,
    EntryFlag,
)
from cvmfs_graphdriver.repository.catalog.loader import CatalogLoader
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.catalog.xattr import encode_xattrs
from cvmfs_graphdriver.repository.digest import Suffix
from cvmfs_graphdriver.repository.errors import CatalogError, FormatError

__all__ = ["TreeIngest", "directory_entry"]

_DIRECTORY_SIZE: Final = 4096
_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755
_NAME_LIMIT: Final = 255
_CHUNKED: Final = EntryFlag.FILE | EntryFlag.CHUNKED
_SYMLINK: Final = EntryFlag.FILE | EntryFlag.SYMLINK
_SPECIAL: Final = EntryFlag.FILE | EntryFlag.SPECIAL
_SYMLINK_HOPS: Final = 40
_STEPS: Final = 4096
"""Names on the way to one directory, those in symbolic links included."""
_MOST_WAITING: Final = 4096
"""How many of the latest entries wait for their content: a constant, so that equal streams make
byte-identical catalogs however fast the storage is."""


def directory_entry(name: bytes, *, now: int, links: int = 2) -> DirectoryEntry:
    """A directory that no entry describes: owned by root, mode 0755, modified at ``now``."""
    return DirectoryEntry(
        name, _DIRECTORY_MODE, _DIRECTORY_SIZE, now, flags=EntryFlag.DIRECTORY, linkcount=links
    )


@dataclass(slots=True)
class _File:
    """What the names of one file share while one of them waits for the content."""

    entry: DirectoryEntry
    content: PendingContent | None = None
    chunks: tuple[Chunk, ...] = ()

    def settle(self) -> None:
        """Wait for the content. Raises StorageError."""
        if self.content is not None:
            stored = self.content.result()
            flags = _CHUNKED if stored.chunks else EntryFlag.FILE
            self.entry = self.entry._replace(flags=flags, size=stored.size, digest=stored.digest)
            self.chunks = stored.chunks
            self.content = None


class TreeIngest:
    """One tree on its way into ``catalog``, at whose mountpoint it will appear; for one thread.

    ``notes`` says in words what could not be preserved.
    """

    def __init__(
        self, catalog: CatalogWriter, objects: ObjectWriter, options: RepositoryOptions, *, now: int
    ) -> None:
        self._catalog = catalog
        self._loader = CatalogLoader(catalog)
        self._base = catalog.mountpoint
        self._objects = objects
        self._options = options
        self._now = now
        self._directories: dict[bytes, DirectoryEntry] = {}
        self._inside: defaultdict[bytes, dict[bytes, None]] = defaultdict(dict)  # directories in directories
        self._waiting: deque[tuple[bytes, _File]] = deque()
        self._recent: dict[bytes, _File] = {}
        self._marker = DirectoryEntry(
            CATALOG_MARKER,
            stat.S_IFREG | 0o644,
            flags=EntryFlag.FILE | EntryFlag.HIDDEN,
            digest=objects.put(b"", Suffix.NONE),
            hash_algorithm=options.algorithm,
        )
        self.notes: list[str] = []

    def take(self, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> None:
        """Take in entries; regular files other than hard links come with their content.

        Raises IngestError: an entry cannot be stored as it is; StorageError.
        """
        for entry, reader in entries:
            _check_path(entry.path)
            if not self._directories:
                self._directories[b""] = directory_entry(b"", now=entry.mtime)
            if stat.S_ISDIR(entry.mode):
                self._take_directory(entry)
            else:
                self._take_file(entry, reader)
            while len(self._waiting) > _MOST_WAITING:
                self._write_first()

    def finish(self) -> DirectoryEntry:
        """Complete the catalog's entries and counters; returns the tree's root directory.

        Raises StorageError.
        """
        self._write_all()
        root = self._directories.pop(b"", None) or directory_entry(b"", now=self._now)
        root = root._replace(name=self._base.rpartition(b"/")[2], linkcount=2 + len(self._inside[b""]))
        self._loader.put(self._base, root._replace(flags=root.flags | EntryFlag.NESTED_ROOT))
        for path, entry in self._directories.items():
            self._loader.put(self._base + path, entry._replace(linkcount=2 + len(self._inside[path])))
        marker = self._base + b"/" + CATALOG_MARKER
        if self._loader.lookup(marker) is None:
            self._loader.put(marker, self._marker._replace(mtime=root.mtime))
        broken = self._loader.settle(by_directory=self._options.break_cross_directory_hardlinks)
        if broken:
            self.notes.append(f"broke up {broken} hard-link groups that cross directories")
        return root

    def split(self, weights: Weights, new_catalog: Callable[[bytes], CatalogWriter]) -> list[CatalogWriter]:
        """Move parts of a big tree that is finished into catalogs of their own."""
        return split_catalog(self._catalog, self._loader, weights, new_catalog, self._marker)

    # Entries as they arrive

    def _take_directory(self, entry: TreeEntry) -> None:
        parent, _, name = entry.path.rpartition(b"/")
        path = self._directory(parent, entry.mtime) + b"/" + name if entry.path else b""
        made = DirectoryEntry(
            name, entry.mode, _DIRECTORY_SIZE, entry.mtime, entry.mtime_ns or None, entry.uid, entry.gid,
            EntryFlag.DIRECTORY, xattr=self._xattr(entry),
        )  # fmt: skip
        self._put_directory(path, made)

    def _take_file(self, entry: TreeEntry, reader: ContentReader | None) -> None:
        parent, _, name = entry.path.rpartition(b"/")
        if not name:
            raise IngestError("the root of the ingested tree cannot be a file")
        if entry.hardlink is not None:
            file = self._linked(entry.path, entry.hardlink)
        elif self._options.ignore_special_files and not (
            stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)
        ):
            self.notes.append(f"left out the special file {os.fsdecode(entry.path)!r}")
            return
        else:
            file = self._file(entry, reader)
        path = self._directory(parent, entry.mtime) + b"/" + name
        if path in self._directories:
            self._forget_directory(path)
        if self._recent.get(path) is not file:
            self._waiting.append((path, file))
            self._recent[path] = file

    def _file(self, entry: TreeEntry, reader: ContentReader | None) -> _File:
        flags = EntryFlag.FILE
        content = None
        if stat.S_ISREG(entry.mode):
            if reader is None:
                raise IngestError(f"the file {os.fsdecode(entry.path)!r} has no content")
            content = self._objects.store(reader)
        elif stat.S_ISLNK(entry.mode):
            flags = _SYMLINK
        else:
            flags = _SPECIAL
        compression = Compression.ZLIB if content is None else self._options.compression
        made = DirectoryEntry(
            entry.path.rpartition(b"/")[2], entry.mode, 0, entry.mtime, entry.mtime_ns or None,
            entry.uid, entry.gid, flags, symlink=entry.symlink, rdev=entry.rdev, xattr=self._xattr(entry),
            hash_algorithm=self._options.algorithm, compression=compression,
        )  # fmt: skip
        return _File(made, content)

    def _linked(self, path: bytes, target: bytes) -> _File:
        """The file with the name ``target``, made a member of a hard-link group."""
        _check_path(target)
        parent, _, name = target.rpartition(b"/")
        real = self._follow(parent)
        at = None if real is None else real + b"/" + name
        try:
            if at is None or at in self._directories:
                raise CatalogError(f"there is no file at {target!r}")
            file = self._recent.get(at)
            if file is None:
                entry, chunks = self._loader.join(self._base + at)
                return _File(entry, None, tuple(chunks))
        except CatalogError as error:
            raise IngestError(
                f"{os.fsdecode(path)!r} is a hard link to {os.fsdecode(target)!r}, and no such file "
                "precedes it"
            ) from error
        if not file.entry.hardlink_group:
            file.entry = file.entry._replace(hardlink_group=self._catalog.new_hardlink_group())
        return file

    def _xattr(self, entry: TreeEntry) -> bytes:
        if not self._options.include_xattrs:
            return b""
        try:
            return encode_xattrs(entry.xattrs)
        except FormatError as error:
            raise IngestError(f"{os.fsdecode(entry.path)!r} cannot be stored: {error}") from error

    # Directories

    def _directory(self, path: bytes, mtime: int) -> bytes:
        """Where the directory ``path`` really is; missing parts are created, as old as ``mtime``."""
        if path in self._directories:
            return path
        real = self._follow(path, mtime)
        if real is None:
            raise AssertionError("a directory that was created exists")
        return real

    def _follow(self, path: bytes, mtime: int | None = None) -> bytes | None:
        """The directory at ``path``, symbolic links resolved; given a time, missing parts are created."""
        at = b""
        parts = deque(path.split(b"/"))
        hops = steps = 0
        while parts:
            part = parts.popleft()
            steps += 1
            if steps > _STEPS:
                raise IngestError(f"{os.fsdecode(path)!r} takes too many steps through symbolic links")
            if part in {b"", b"."}:
                continue
            if part == b"..":
                at = at.rpartition(b"/")[0]
                continue
            here = at + b"/" + part
            if here not in self._directories:
                target = self._symlink(here)
                if target is not None:
                    hops += 1
                    if hops > _SYMLINK_HOPS:
                        raise IngestError(f"{os.fsdecode(path)!r} goes through too many symbolic links")
                    at = b"" if target.startswith(b"/") else at
                    parts.extendleft(reversed(target.split(b"/")))
                    continue
                if mtime is None:
                    return None
                self._put_directory(here, directory_entry(part, now=mtime))
            at = here
        return at

    def _put_directory(self, path: bytes, entry: DirectoryEntry) -> None:
        self._recent.pop(path, None)
        self._directories[path] = entry
        if path:
            self._inside[path.rpartition(b"/")[0]][path] = None

    def _symlink(self, path: bytes) -> bytes | None:
        """Where the symbolic link at a path points; None if there is none."""
        file = self._recent.get(path)
        entry = self._loader.lookup(self._base + path) if file is None else file.entry
        return entry.symlink if entry is not None and entry.is_symlink else None

    def _forget_directory(self, path: bytes) -> None:
        """Forget a directory and everything in it, since a file takes its place."""
        self._write_all()
        del self._inside[path.rpartition(b"/")[0]][path]
        pending = [path]
        while pending:
            at = pending.pop()
            self._loader.clear(self._base + at)
            del self._directories[at]
            pending += self._inside.pop(at, ())

    # Into the catalog

    def _write_all(self) -> None:
        while self._waiting:
            self._write_first()

    def _write_first(self) -> None:
        path, file = self._waiting.popleft()
        file.settle()
        name, entry = path.rpartition(b"/")[2], file.entry
        self._loader.put(
            self._base + path, entry if entry.name == name else entry._replace(name=name), file.chunks
        )
        if self._recent.get(path) is file:
            del self._recent[path]


def _check_path(path: bytes) -> None:
    """Raises IngestError: ``path`` is not a path below a root, or no file system can hold it."""
    if (
        path[:1] == b"/"
        and len(path) <= _NAME_LIMIT
        and not (b"//" in path or b"/." in path or b"\0" in path or path.endswith(b"/"))
    ):
        return  # the usual case
    parts = path.split(b"/")
    if parts[0] or any(part in {b"", b".", b".."} or len(part) > _NAME_LIMIT for part in parts[1:]):
        raise IngestError(f"{os.fsdecode(path[:1000])!r} is not a path below the root of the ingested tree")
    if b"\0" in path:
        raise IngestError(f"{os.fsdecode(path[:1000])!r} contains a zero byte, which no file name can")
