"""Reading a tar stream: ustar, PAX and GNU, as image builders write them.

Owns: the sequence of members, and the content of the current one. Must not know: compression, digests,
images. Follows POSIX.1-2017 (pax) and the GNU tar manual; where readers differ it does as Docker's: global
headers are skipped, and members of a kind that no file system has are refused. A damaged header in the middle
is an error, never the end of the archive, and names stay bytes; docs/adr/0002-tar-reader.md says why the
standard library's module is not used.
"""

import os
from collections.abc import Iterator
from typing import Final

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.entry import LONGEST_PATH, EntryKind, LayerEntry, layer_path
from cvmfs_graphdriver.oci.layer.header import BLOCK, Header, kind_of, parse_header, parse_size
from cvmfs_graphdriver.oci.layer.pax import Records, parse_records, parse_time, read_xattrs
from cvmfs_graphdriver.oci.layer.sparse import (
    DataSegment,
    SparseReader,
    check_map,
    map_in_data,
    map_in_header,
    map_in_records,
)
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["TarReader"]

_READ: Final = 1 << 18
_ZERO_BLOCK: Final = bytes(BLOCK)
_MAX_EXTENSION: Final = 1 << 20
_MAX_HOLES: Final = 1 << 40
_MAX_ID: Final = (1 << 32) - 2
_MAX_SYMLINK: Final = 4095
_MAX_TIME: Final = 1 << 55
_KINDS: Final = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"S": EntryKind.FILE,
    b"1": EntryKind.HARD_LINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHARACTER_DEVICE,
    b"4": EntryKind.BLOCK_DEVICE,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
}
_NO_RECORDS: Final[Records] = {}


class _Stored:
    """The bytes stored in the archive for one member."""

    def __init__(self, archive: "TarReader", size: int) -> None:
        self._archive = archive
        self._left = size
        self._padding = -size % BLOCK

    def read(self, size: int, /) -> bytes:
        if not self._left:
            return b""
        data = self._archive.take_some(min(size, self._left))
        self._left -= len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes, which must be there."""
        if size > self._left:
            raise LayerFormatError("it is damaged: a member is shorter than its map of holes")
        self._left -= size
        return self._archive.exactly(size)

    def skip(self) -> None:
        """Skip the rest of the member, including the padding of its last block."""
        self._left += self._padding
        self._padding = 0
        while self._left:
            self.read(_READ)


class TarReader:
    """The entries of a tar stream in order, each with its content while it is the current one."""

    def __init__(self, name: str, source: ByteSource, *, longest: int = LONGEST_PATH) -> None:
        """Read ``source``, which errors call ``name``; ``longest`` limits paths, in bytes."""
        self._longest = longest
        self._name = name
        self._source = source
        self._buffer = b""
        self._position = 0
        self._stored = _Stored(self, 0)
        self._content: ByteSource = self._stored
        self._holes = 0

    def __iter__(self) -> Iterator[LayerEntry]:
        """The entries in the order of the archive; the source is read to its end before the iteration ends.

        Raises LayerFormatError: the archive is damaged, truncated, or has what no layer should have.
        """
        path = b""
        try:
            while (member := self._next_member()) is not None:
                path = member.path
                yield member
        except LayerFormatError as error:
            after = f" (after {os.fsdecode(path)!r})" if path else ""
            raise LayerFormatError(f"{self._name}: {error}{after}") from error

    def read(self, size: int, /) -> bytes:
        """The next bytes of the current entry, holes filled, ``b""`` at its end."""
        return self._content.read(size)

    def take_some(self, size: int) -> bytes:
        """At most ``size`` bytes of the archive, and at least one unless ``size`` is 0."""
        if self._position == len(self._buffer) and size:
            self._buffer, self._position = self._source.read(_READ), 0
            if not self._buffer:
                raise LayerFormatError("it is truncated")
        start = self._position
        self._position = min(start + size, len(self._buffer))
        return self._buffer[start : self._position]

    def _block(self) -> bytes:
        """The next block; ``b""`` at the end of the archive."""
        start = self._position
        if len(self._buffer) - start >= BLOCK:
            self._position += BLOCK
            return self._buffer[start : self._position]
        if start == len(self._buffer):
            self._buffer, self._position = self._source.read(_READ), 0
            if not self._buffer:
                return b""
        return self.exactly(BLOCK)

    def exactly(self, size: int) -> bytes:
        """Exactly ``size`` bytes of the archive, which must be there."""
        data = self.take_some(size)
        while len(data) < size:
            data += self.take_some(size - len(data))
        return data

    def _next_member(self) -> LayerEntry | None:
        self._stored.skip()
        records = _NO_RECORDS
        long_name = long_link = None
        while True:
            block = self._block()
            if not block or block == _ZERO_BLOCK:
                self._drain()
                return None
            kind = kind_of(block)
            if kind == b"x":
                records = parse_records("it is damaged", self._extension(block))
            elif kind == b"L":
                long_name = self._extension(block).partition(b"\0")[0]
            elif kind == b"K":
                long_link = self._extension(block).partition(b"\0")[0]
            elif kind == b"g":
                self._extension(block)
            else:
                header = parse_header(block)
                if long_name is not None:
                    header = header._replace(name=long_name)
                if long_link is not None:
                    header = header._replace(linkname=long_link)
                return self._member(header, records, block)

    def _extension(self, block: bytes) -> bytes:
        """The content of a header that extends the next one."""
        size = parse_size(block)
        if not 0 <= size <= _MAX_EXTENSION:
            raise LayerFormatError(f"an extended header claims {size} bytes; the limit is {_MAX_EXTENSION}")
        return self.exactly(size + -size % BLOCK)[:size]

    def _drain(self) -> None:
        """Read what follows the end marker, so that the source can verify itself."""
        self._buffer, self._position = b"", 0
        while self._source.read(_READ):
            pass
        self._stored = _Stored(self, 0)
        self._content = self._stored

    def _member(self, header: Header, records: Records, block: bytes) -> LayerEntry:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise LayerFormatError(f"{header.name[:200]!r} is of the unknown kind {header.kind!r}")
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or header.name
        if header.kind == b"\0" and name.endswith(b"/"):
            kind = EntryKind.DIRECTORY
        path = layer_path(name, self._longest)
        if not path and kind is not EntryKind.DIRECTORY:
            raise LayerFormatError(f"the root of the layer is a {kind.value}")
        shown = os.fsdecode(path)
        mtime, mtime_ns = header.mtime, 0
        uid, gid, size = header.uid, header.gid, header.size
        xattrs = {}
        if records:
            uid = _record_number(shown, records, b"uid", uid)
            gid = _record_number(shown, records, b"gid", gid)
            size = _record_number(shown, records, b"size", size)
            if records.get(b"mtime"):
                mtime, mtime_ns = parse_time(shown, records[b"mtime"])
            xattrs = read_xattrs(shown, records)
        if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID and abs(mtime) < _MAX_TIME and size >= 0):
            raise LayerFormatError(f"{shown!r} has an owner, time or size that Linux cannot hold")
        if kind is EntryKind.FILE:
            size = self._open(shown, size, records, block if header.kind == b"S" else b"")
        else:
            self._open(shown, 0, _NO_RECORDS, b"")
            size = 0
        linkname, device = b"", 0
        if not (kind is EntryKind.FILE or kind is EntryKind.DIRECTORY):
            target = records.get(b"linkpath") or header.linkname
            linkname = _linkname(shown, kind, target, self._longest)
            device = _device(shown, header)
        return LayerEntry(
            path, kind, header.mode & 0o7777, uid, gid, mtime, mtime_ns, size, linkname, device, xattrs
        )

    def _open(self, shown: str, stored: int, records: Records, sparse_block: bytes) -> int:
        """Make a member the current one; returns the size of its file."""
        segments: list[DataSegment] | None = None
        size, taken = stored, 0
        if sparse_block:
            segments, size = map_in_header(shown, sparse_block, self.exactly)
        self._stored = _Stored(self, stored)
        if records.get(b"GNU.sparse.major") == b"1":
            size = _record_number(shown, records, b"GNU.sparse.realsize", stored)
            segments, taken = map_in_data(shown, self._stored.exactly)
        elif (listed := map_in_records(shown, records)) is not None:
            size = _record_number(shown, records, b"GNU.sparse.size", stored)
            segments = listed
        if segments is None:
            self._content = self._stored
            return size
        check_map(shown, segments, size, stored - taken)
        self._holes += size - (stored - taken)
        if self._holes > _MAX_HOLES:
            raise LayerFormatError(f"{shown!r} brings the holes in this archive above {_MAX_HOLES >> 40} TiB")
        self._content = SparseReader(self._stored, segments, size)
        return size


def _record_number(shown: str, records: Records, key: bytes, default: int) -> int:
    """A number from the extended header; if it is absent or empty, the header's own value counts."""
    text = records.get(key)
    if not text:
        return default
    if not text.isdigit() or len(text) > 19:
        raise LayerFormatError(f"{shown!r} has {key.decode()} {text[:40]!r}, which is not a number")
    return int(text)


def _linkname(shown: str, kind: EntryKind, target: bytes, longest: int) -> bytes:
    if kind is EntryKind.HARD_LINK:
        path = layer_path(target, longest)
        if not path:
            raise LayerFormatError(f"{shown!r} is a hard link to the root of the layer")
        return path
    if kind is EntryKind.SYMLINK:
        if not target or b"\0" in target or len(target) > _MAX_SYMLINK:
            raise LayerFormatError(f"{shown!r} is a symbolic link that Linux cannot hold")
        return target
    return b""


def _device(shown: str, header: Header) -> int:
    """The device number; 0 for anything but a device."""
    if not (0 <= header.major < 1 << 12 and 0 <= header.minor < 1 << 20):
        raise LayerFormatError(f"{shown!r} has a device number that Linux cannot hold")
    return os.makedev(header.major, header.minor)
