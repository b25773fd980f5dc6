"""A tree on its way into a catalog: entries as they arrive, then a consistent whole.

Owns: what a stream of entries means – later ones replace earlier ones, parents that are missing are made up,
names that share an inode become a hard-link group – and which entry flags follow (CernVM-FS format
reference, sections 3.5, 3.6 and 14). Must not know: where catalogs are stored, what kind of stream it was.

Hard links: a group is local to a catalog, and nothing that reads catalogs asks its members to be in one
directory, so groups across directories are kept, as a container's files need it. The stock server cannot
write those; ``break_cross_directory_hardlinks`` gives what it does.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cvmfs_graphdriver.publisher.errors import IngestError
from cvmfs_graphdriver.publisher.objects import ObjectWriter, PendingContent
from cvmfs_graphdriver.publisher.options import RepositoryOptions
from cvmfs_graphdriver.publisher.tree_entry import ContentReader, TreeEntry
from cvmfs_graphdriver.repository.entry import Chunk, DirectoryEntry, EntryFlag
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.xattr import encode_xattrs

__all__ = ["IngestedTree", "directory_entry"]

_DIRECTORY_SIZE = 4096
_DIRECTORY_MODE = stat.S_IFDIR | 0o755


def directory_entry(name: bytes, *, now: int, links: int = 2) -> DirectoryEntry:
    """A directory that nobody described: owned by root, 0755, modified ``now``."""
    return DirectoryEntry(
        name, _DIRECTORY_MODE, _DIRECTORY_SIZE, now, flags=EntryFlag.DIRECTORY, linkcount=links
    )


@dataclass(slots=True)
class _Inode:
    """What the names of one file share."""

    source: TreeEntry
    xattr: bytes = b""
    content: PendingContent | None = None
    names: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Directory:
    """A directory by path; ``source`` is None as long as only its children came."""

    source: TreeEntry | None = None
    xattr: bytes = b""
    children: dict[bytes, "_Directory | _Inode"] = field(default_factory=dict)


class IngestedTree:
    """One tree in the making. ``notes`` says in words what could not be kept as it was."""

    def __init__(self, writer: ObjectWriter, options: RepositoryOptions, *, now: int) -> None:
        self._writer = writer
        self._options = options
        self._now = now
        self._root = _Directory()
        self.notes: list[str] = []

    def take(self, entries: Iterable[tuple[TreeEntry, ContentReader | None]]) -> None:
        """Take in entries; a regular file that is no hard link comes with its content.

        Raises IngestError: an entry that cannot be stored as it is.
        """
        for entry, reader in entries:
            self._take(entry, reader)

    def _take(self, entry: TreeEntry, reader: ContentReader | None) -> None:
        path = entry.path
        if path and (path[:1] != b"/" or any(part in {b"", b".", b".."} for part in path[1:].split(b"/"))):
            raise IngestError(f"{path!r} is no path below the directory that is ingested")
        if any(len(part) > 255 or b"\0" in part for part in path.split(b"/")):
            raise IngestError(f"{path[:300]!r} has a name that no file system can hold")
        if stat.S_ISDIR(entry.mode):
            directory = self._directory(path)
            directory.source = entry
            directory.xattr = self._xattr(entry)
            return
        if not path:
            raise IngestError("the directory that is ingested cannot be a file")
        where, _, name = path.rpartition(b"/")
        if entry.hardlink is not None:
            inode = self._file(entry.hardlink)
            if inode is None:
                raise IngestError(
                    f"{path!r} is a hard link to {entry.hardlink!r}, which does not come before it"
                )
        else:
            if (
                not (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode))
                and self._options.ignore_special_files
            ):
                self.notes.append(f"left out the special file {path!r}")
                return
            inode = _Inode(entry, self._xattr(entry))
            if stat.S_ISREG(entry.mode):
                if reader is None:
                    raise IngestError(f"the file {path!r} comes without content")
                inode.content = self._writer.store(reader)
        parent = self._directory(where)
        replaced = parent.children.get(name)
        if replaced is inode:
            return
        if isinstance(replaced, _Inode):
            replaced.names.remove(path)
        parent.children[name] = inode
        inode.names.append(path)

    def _xattr(self, entry: TreeEntry) -> bytes:
        if not self._options.include_xattrs:
            return b""
        try:
            return encode_xattrs(entry.xattrs)
        except FormatError as error:
            raise IngestError(f"{entry.path!r} cannot be stored: {error}") from error

    def _directory(self, path: bytes) -> _Directory:
        """The directory at a path, made up if need be; a file in its way is replaced."""
        directory = self._root
        at = b""
        for part in path.split(b"/")[1:]:
            at += b"/" + part
            child = directory.children.get(part)
            if not isinstance(child, _Directory):
                if child is not None:
                    child.names.remove(at)
                child = directory.children[part] = _Directory()
            directory = child
        return directory

    def _file(self, path: bytes) -> _Inode | None:
        found: _Directory | _Inode | None = self._root
        for part in path.split(b"/")[1:]:
            if not isinstance(found, _Directory):
                return None
            found = found.children.get(part)
        return found if isinstance(found, _Inode) else None

    def entries(self, base: bytes) -> Iterator[tuple[bytes, DirectoryEntry, tuple[Chunk, ...]]]:
        """Everything, directories before what is in them, with absolute paths below ``base``.

        Waits for content that is still being stored. Raises StorageError.
        """
        name = base.rpartition(b"/")[2]
        yield base, self._directory_entry(self._root, name), ()
        groups: dict[int, int] = {}
        pending = [(base, self._root)]
        while pending:
            path, directory = pending.pop()
            for name, child in directory.children.items():
                at = path + b"/" + name
                if isinstance(child, _Directory):
                    yield at, self._directory_entry(child, name), ()
                    pending.append((at, child))
                else:
                    yield at, *self._file_entry(child, name, groups)

    def _directory_entry(self, directory: _Directory, name: bytes) -> DirectoryEntry:
        links = 2 + sum(isinstance(child, _Directory) for child in directory.children.values())
        source = directory.source
        if source is None:
            return directory_entry(name, now=self._now, links=links)
        return DirectoryEntry(
            name, source.mode, _DIRECTORY_SIZE, source.mtime, source.mtime_ns, source.uid, source.gid,
            EntryFlag.DIRECTORY, links, xattr=directory.xattr,
        )  # fmt: skip

    def _file_entry(
        self, inode: _Inode, name: bytes, groups: dict[int, int]
    ) -> tuple[DirectoryEntry, tuple[Chunk, ...]]:
        source = inode.source
        group, links = self._group(inode, groups)
        entry = DirectoryEntry(
            name, source.mode, 0, source.mtime, source.mtime_ns, source.uid, source.gid, EntryFlag.FILE,
            links, group, xattr=inode.xattr, hash_algorithm=self._options.algorithm,
        )  # fmt: skip
        if stat.S_ISLNK(source.mode):
            flags = EntryFlag.FILE | EntryFlag.SYMLINK
            return entry._replace(flags=flags, symlink=source.symlink, size=len(source.symlink)), ()
        if inode.content is None:
            return entry._replace(flags=EntryFlag.FILE | EntryFlag.SPECIAL, rdev=source.rdev), ()
        stored = inode.content.result()
        flags = EntryFlag.FILE | EntryFlag.CHUNKED if stored.chunks else EntryFlag.FILE
        return (
            entry._replace(
                flags=flags, size=stored.size, digest=stored.digest, compression=self._options.compression
            ),
            stored.chunks,
        )

    def _group(self, inode: _Inode, groups: dict[int, int]) -> tuple[int, int]:
        """The number of the hard-link group, 0 for none, and how many names it has."""
        names = inode.names
        if len(names) == 1:
            return 0, 1
        if self._options.break_cross_directory_hardlinks and len({n.rpartition(b"/")[0] for n in names}) > 1:
            if id(inode) not in groups:
                groups[id(inode)] = 0
                self.notes.append(f"broke up a hard link across directories: {names[0]!r}")
            return 0, 1
        return groups.setdefault(id(inode), len(groups) + 1), len(names)
