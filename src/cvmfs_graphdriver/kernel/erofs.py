"""A writer of EROFS images that hold metadata only: every regular file is a hole or a redirect.

Owns: the on-disk format as the kernel documents it (Documentation/filesystems/erofs.rst and
fs/erofs/erofs_fs.h): superblock, extended inodes, inline and shared extended attributes, directory blocks,
chunk-based holes. Must not know: where a tree comes from or where the data is.

A file whose data lies in an overlay *data-only* layer carries ``trusted.overlay.metacopy`` and
``trusted.overlay.redirect`` (Documentation/filesystems/overlayfs.rst, "Data-only lower layers"). The
first is the same for all files, so it is stored once, as a shared attribute.

An image is made in two passes: the first places every inode, the second writes it. An inode's number is its
place in units of 32 bytes, so no table is needed. Inline data (a symlink's target, the last part of a
directory) must not cross a block boundary; nothing else needs care.
"""

import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cvmfs_graphdriver.kernel.errors import ErofsError

__all__ = ["Directory", "Inode", "write_image"]

_BLOCK = 4096
_SLOT = 32
_TARGET_LIMIT = 4095  # of a longer one, Linux would show so much
_SUPERBLOCK_AT = 1024
_MAGIC = 0xE0F5E1E2
_CHUNKED_FILES = 0x4  # feature_incompat
_HOLE = 0xFFFFFFFF
_PLAIN, _INLINE, _CHUNKS = (layout << 1 | 1 for layout in (0, 2, 4))  # i_format: layout, extended inode

_superblock = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_inode = struct.Struct("<HHHHQIIIIqII16x")
_dirent = struct.Struct("<QHBx")
_xattr_header = struct.Struct("<IB7x")
_xattr_entry = struct.Struct("<BBH")
_u32 = struct.Struct("<I")

_XATTR_PREFIXES = (  # the longer first: an ACL's name is wholly its prefix
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"user.", 1),
)
_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_METACOPY = b"trusted.overlay.metacopy"
_REDIRECT = b"trusted.overlay.redirect"


@dataclass(slots=True, eq=False)
class Inode:
    """Anything but a directory. One object under several names is one inode with hard links.

    ``mode`` is a full st_mode, ``mtime`` in seconds, ``size`` a regular file's size in bytes, ``redirect``
    the absolute path of its data in a data-only layer (None: the file reads as zeros), ``target`` a
    symlink's, ``rdev`` as the kernel encodes it for user space (``os.makedev``).
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    links: int = 1
    xattrs: Mapping[bytes, bytes] | None = None
    size: int = 0
    redirect: bytes | None = None
    target: bytes = b""
    rdev: int = 0
    place: int = field(default=0, init=False, repr=False)
    attributes: bytes = field(default=b"", init=False, repr=False)
    block: int = field(default=0, init=False, repr=False)


@dataclass(slots=True, eq=False)
class Directory:
    """A directory and its entries by name."""

    mode: int = stat.S_IFDIR | 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    xattrs: Mapping[bytes, bytes] | None = None
    children: "dict[bytes, Inode | Directory]" = field(default_factory=dict)
    place: int = field(default=0, init=False, repr=False)
    attributes: bytes = field(default=b"", init=False, repr=False)
    blocks: list[list[bytes]] = field(default_factory=list, init=False, repr=False)
    stored_size: int = field(default=0, init=False, repr=False)
    inline: bool = field(default=False, init=False, repr=False)
    block: int = field(default=0, init=False, repr=False)
    parent: "Directory | None" = field(default=None, init=False, repr=False)


def write_image(root: Directory, *, build_time: int = 0, identity: bytes = bytes(16)) -> bytearray:
    """The image of the tree below ``root``. The same tree always gives the same bytes.

    ``build_time`` is a Unix time, ``identity`` the 16 bytes of the volume's UUID. The writer keeps the layout
    in the tree's objects, so nobody else may use them meanwhile. Raises ErofsError: the format cannot hold
    something in the tree.
    """
    try:
        return _Writer(root).write(build_time, identity)
    except struct.error as error:
        raise ErofsError(f"a number in the tree does not fit into EROFS: {error}") from error


def _attribute(name: bytes, value: bytes) -> bytes:
    """One attribute as it is stored, padded to four bytes."""
    index, rest = _shorten(name)
    if len(rest) > 255 or len(value) > 65535:
        raise ErofsError(f"the extended attribute {name[:64]!r} is too long for EROFS")
    entry = _xattr_entry.pack(len(rest), index, len(value)) + rest + value
    return entry + bytes(-len(entry) & 3)


def _shorten(name: bytes) -> tuple[int, bytes]:
    """The number of an attribute's namespace and the rest of its name."""
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    raise ErofsError(f"EROFS cannot store the extended attribute {name!r}: unknown namespace")


def _encode_device(rdev: int) -> int:
    """A device number in the 32-bit form of the kernel (new_encode_dev)."""
    major = (rdev >> 8 & 0xFFF) | (rdev >> 32 & 0xFFFFF000)
    minor = (rdev & 0xFF) | (rdev >> 12 & 0xFFFFFF00)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _split(names: list[bytes]) -> tuple[list[list[bytes]], int]:
    """Sorted names distributed over directory blocks, and the bytes used in the last one."""
    blocks: list[list[bytes]] = []
    block: list[bytes] = []
    used = 0
    for name in names:
        need = _dirent.size + len(name)
        if used + need > _BLOCK:
            blocks.append(block)
            block, used = [], 0
        block.append(name)
        used += need
    blocks.append(block)
    return blocks, used


class _Writer:
    """The state of one run: where the next inode goes, and what was placed, in order."""

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._shared = _attribute(_METACOPY, b"")
        shared_at = _SUPERBLOCK_AT + _superblock.size
        self._shared_reference = _u32.pack(shared_at // 4)
        self._shared_at = shared_at
        self._next = -(-(shared_at + len(self._shared)) // _SLOT) * _SLOT
        self._files: list[Inode] = []
        self._directories: list[Directory] = []
        self._attribute_cache: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}

    def write(self, build_time: int, identity: bytes) -> bytearray:
        blocks = self._place_all()
        image = bytearray(blocks * _BLOCK)
        image[self._shared_at : self._shared_at + len(self._shared)] = self._shared
        for number, inode in enumerate(self._files, 1):
            self._write_file(image, inode, number)
        for number, directory in enumerate(self._directories, 1 + len(self._files)):
            self._write_directory(image, directory, number)
        _superblock.pack_into(
            image, _SUPERBLOCK_AT,
            _MAGIC, 0, 0, 12, 0, self._root.place // _SLOT, len(self._files) + len(self._directories),
            build_time, 0, blocks, 0, 0, identity, b"cvmfs", _CHUNKED_FILES, 0, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        return image

    # First pass: places.

    def _place_all(self) -> int:
        """Place everything; returns the image's length in blocks."""
        self._root.parent = self._root
        self._place_directory(self._root)
        pending = [self._root]
        with_blocks: list[Directory | Inode] = []
        while pending:
            directory = pending.pop()
            self._directories.append(directory)
            if len(directory.blocks) > directory.inline:
                with_blocks.append(directory)
            for child in directory.children.values():
                if child.__class__ is Directory:
                    child.parent = directory
                    self._place_directory(child)
                    pending.append(child)
                elif not child.place:
                    if self._place_file(child):  # type: ignore[arg-type]
                        with_blocks.append(child)
                    self._files.append(child)  # type: ignore[arg-type]
        block = -(-self._next // _BLOCK)
        for owner in with_blocks:
            owner.block = block
            block += len(owner.blocks) - owner.inline if isinstance(owner, Directory) else 1
        return block

    def _place_directory(self, directory: Directory) -> None:
        if not stat.S_ISDIR(directory.mode):
            raise ErofsError(f"a directory has the mode {directory.mode:o}")
        directory.attributes = attributes = self._attributes(directory.xattrs, None)
        directory.blocks, tail = _split(sorted([b".", b"..", *directory.children]))
        directory.stored_size = (len(directory.blocks) - 1) * _BLOCK + tail
        fixed = _inode.size + len(attributes)
        # A last block that is exactly full would leave no tail to be stored inline.
        directory.inline = fixed + tail <= _BLOCK and tail < _BLOCK
        directory.place = self._reserve(fixed, tail if directory.inline else 0)

    def _place_file(self, inode: Inode) -> bool:
        """Place one inode; says whether it needs a data block (a target too long to be stored inline)."""
        if stat.S_IFMT(inode.mode) not in _FILE_TYPES or stat.S_ISDIR(inode.mode):
            raise ErofsError(f"EROFS has no file type for the mode {inode.mode:o}")
        inode.attributes = attributes = self._attributes(inode.xattrs, inode.redirect)
        fixed = _inode.size + len(attributes)
        if inode.size:
            inode.place = self._reserve(fixed + _u32.size, 0)
        elif len(inode.target) > _TARGET_LIMIT:
            raise ErofsError(
                f"a symlink target of {len(inode.target)} bytes is too long: the limit is {_TARGET_LIMIT}"
            )
        elif fixed + len(inode.target) > _BLOCK:
            inode.place = self._reserve(fixed, 0)
            return True
        else:
            inode.place = self._reserve(fixed, len(inode.target))
        return False

    def _reserve(self, fixed: int, inline: int) -> int:
        """A place for an inode of ``fixed`` bytes followed by ``inline`` bytes of data."""
        place = self._next
        if inline and (place + fixed) // _BLOCK != (place + fixed + inline - 1) // _BLOCK:
            place = -(-place // _BLOCK) * _BLOCK  # the caller keeps fixed + inline below a block
        self._next = (place + fixed + inline + _SLOT - 1) & -_SLOT
        return place

    def _attributes(self, xattrs: Mapping[bytes, bytes] | None, redirect: bytes | None) -> bytes:
        """The attribute area that follows an inode."""
        if redirect is not None:
            inline = b"".join(_attribute(name, value) for name, value in xattrs.items()) if xattrs else b""
            return (
                _xattr_header.pack(0, 1) + self._shared_reference + inline + _attribute(_REDIRECT, redirect)
            )
        if not xattrs:
            return b""
        key = tuple(xattrs.items())
        area = self._attribute_cache.get(key)
        if area is None:
            area = _xattr_header.pack(0, 0) + b"".join(_attribute(name, value) for name, value in key)
            self._attribute_cache[key] = area
        return area

    # Second pass: bytes.

    def _write_file(self, image: bytearray, inode: Inode, number: int) -> None:
        attributes = inode.attributes
        at = inode.place
        behind = at + _inode.size + len(attributes)
        size, data = inode.size, 0
        if size:
            layout = _CHUNKS
            # One chunk covers the whole file: its size is 4 KiB times a power of two.
            data = min((size - 1 >> 12).bit_length(), 31)
            if size > _BLOCK << 31:
                raise ErofsError(f"a file of {size} bytes is too large for one EROFS chunk")
            _u32.pack_into(image, behind, _HOLE)
        elif inode.target:
            size = len(inode.target)
            layout, data = (_PLAIN, inode.block) if inode.block else (_INLINE, 0)
            start = inode.block * _BLOCK or behind
            image[start : start + size] = inode.target
        else:
            layout, data = _PLAIN, _encode_device(inode.rdev)
        _inode.pack_into(
            image, at, layout, _count(attributes), inode.mode, 0, size, data, number,
            inode.uid, inode.gid, inode.mtime, inode.mtime_ns, inode.links,
        )  # fmt: skip
        image[at + _inode.size : behind] = attributes

    def _write_directory(self, image: bytearray, directory: Directory, number: int) -> None:
        attributes = directory.attributes
        at = directory.place
        behind = at + _inode.size + len(attributes)
        links = 2 + sum(child.__class__ is Directory for child in directory.children.values())
        _inode.pack_into(
            image, at, _INLINE if directory.inline else _PLAIN, _count(attributes), directory.mode, 0,
            directory.stored_size, directory.block or _HOLE, number,
            directory.uid, directory.gid, directory.mtime, directory.mtime_ns, links,
        )  # fmt: skip
        image[at + _inode.size : behind] = attributes
        last = len(directory.blocks) - 1
        for index, data in enumerate(_directory_blocks(directory)):
            start = behind if index == last and directory.inline else (directory.block + index) * _BLOCK
            image[start : start + len(data)] = data


def _count(attributes: bytes) -> int:
    """i_xattr_icount of an attribute area."""
    return (len(attributes) - _xattr_header.size) // 4 + 1 if attributes else 0


def _directory_blocks(directory: Directory) -> Iterator[bytes]:
    """The blocks of a directory: entries, then their names; the last one is not padded."""
    children, types, pack = directory.children, _FILE_TYPES, _dirent.pack
    for names in directory.blocks:
        at = _dirent.size * len(names)
        parts = []
        for name in names:
            child = children.get(name)
            if child is None:
                child = directory if name == b"." else directory.parent
            parts.append(pack(child.place // _SLOT, at, types[child.mode & 0o170000]))  # type: ignore[union-attr]
            at += len(name)
        yield b"".join([*parts, *names])
