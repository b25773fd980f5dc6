"""The FUSE wire protocol: every structure, number and flag that a read-only file system needs.

Owns: the bytes of requests, replies and notifications, as ``include/uapi/linux/fuse.h`` and
Documentation/filesystems/fuse.rst describe them (protocol 7.31, Linux 5.4, to 7.45). Does no I/O. Must not
know: what is served.

A request is a header and a body; a reply repeats the header's ``unique`` and has an error number or a body.
A *node* is the number by which the kernel knows a file; we give it in an entry. A time to live says how long
the kernel may answer from its caches; ``FOREVER`` is for what cannot change.
"""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from cvmfs_graphdriver.kernel.errors import FuseError

__all__ = [
    "FOREVER",
    "HEADER",
    "MAX_READ",
    "READ_ONLY_REFUSALS",
    "REQUEST_BUFFER",
    "ROOT_NODE",
    "Agreement",
    "Attributes",
    "InitFlag",
    "Notification",
    "Opcode",
    "StatFs",
    "agree",
    "attributes_in",
    "attributes_reply",
    "directory_entry",
    "directory_entry_plus",
    "entry",
    "error_reply",
    "invalidate_inode",
    "no_entry",
    "reply_header",
    "store_header",
]

ROOT_NODE = 1
FOREVER = 1 << 31
"""A time to live in seconds that outlasts every mount; the kernel has no infinite one."""

REQUEST_BUFFER = 16384
"""Bytes for one request; the kernel needs at least 8192, and can forget more nodes at once with more."""

MAX_READ = 1 << 20
"""The most bytes that the kernel may ask for in one READ; more would need a sysctl."""

_MINIMUM_MINOR, _NEWEST_MINOR = 31, 45
_MAX_WRITE = 4096  # nobody writes; the kernel accepts no less
_MAX_READAHEAD = 16 << 20
_MAX_BACKGROUND = 64

HEADER = struct.Struct("=IIQQIIIHxx")
"""Header of a request: length, opcode, unique, node, uid, gid, pid of the caller, length of extensions."""

_reply_header = struct.Struct("=IiQ")
_attributes = struct.Struct("=6Q10I")
_entry_out = struct.Struct("=4QII88s")
_attribute_out = struct.Struct("=QII88s")
_dirent = struct.Struct("=QQII")
_direntplus = struct.Struct("=128sQQII")
_PADDING = (b"", *(bytes(8 - length) for length in range(1, 8)))
"""What follows a name in a listing, by the lowest three bits of its length."""
_statfs_out = struct.Struct("=5Q4I24x")
_init_in = struct.Struct("=IIII")
_init_out = struct.Struct("=IIIIHHIIHH32x")
_store = struct.Struct("=QQI4x")
_inval_inode = struct.Struct("=Qqq")


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    TMPFILE = 51


READ_ONLY_REFUSALS = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
        Opcode.COPY_FILE_RANGE,
        Opcode.TMPFILE,
    }
)
"""Requests that would modify something."""


class InitFlag(IntFlag):
    """Features that kernel and server agree on at the beginning."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25


class Notification(IntEnum):
    """What a server sends without being asked."""

    INVAL_INODE = 2
    STORE = 4


_WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.EXPORT_SUPPORT
    | InitFlag.DO_READDIRPLUS
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.ABORT_ERROR
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.EXPLICIT_INVAL_DATA
)


class Agreement(NamedTuple):
    """What kernel and server agreed on."""

    minor: int
    flags: InitFlag


def agree(body: bytes | memoryview) -> tuple[Agreement, bytes]:
    """Read the body of an INIT request; returns the agreement, and the body of the reply that makes it.

    Raises FuseError: the kernel's protocol is too old, or not supported.
    """
    if len(body) < _init_in.size:
        raise FuseError("the kernel's first FUSE message is too short")
    major, minor, _, flags = _init_in.unpack_from(body)
    if (major, minor) < (7, _MINIMUM_MINOR) or major != 7:
        raise FuseError(
            f"the kernel speaks FUSE {major}.{minor}; "
            f"7.{_MINIMUM_MINOR} is needed, which comes with Linux 5.4"
        )
    agreement = Agreement(min(minor, _NEWEST_MINOR), InitFlag(flags & _WANTED))
    reply = _init_out.pack(
        7,
        agreement.minor,
        _MAX_READAHEAD,
        agreement.flags,
        _MAX_BACKGROUND,
        _MAX_BACKGROUND * 3 // 4,
        _MAX_WRITE,
        1,  # nanoseconds: the granularity of times
        MAX_READ // 4096,
        0,
    )
    return agreement, reply


class Attributes(NamedTuple):
    """What stat(2) shows: ``mode`` is a full st_mode, ``rdev`` is encoded as by os.makedev, times are in
    seconds and nanoseconds, ``blocks`` in units of 512 bytes.
    """

    inode: int
    mode: int
    size: int = 0
    blocks: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    links: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    block_size: int = 4096

    def pack(self) -> bytes:
        """The structure ``fuse_attr``; the modification time stands for the other two as well."""
        inode, mode, size, blocks, seconds, nanoseconds, links, uid, gid, rdev, block_size = self
        seconds &= 0xFFFFFFFFFFFFFFFF
        return _attributes.pack(
            inode, size, blocks, seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
            mode, links, uid, gid, rdev and _encode_device(rdev), block_size, 0,
        )  # fmt: skip


def _encode_device(rdev: int) -> int:
    """A device number in the kernel's 32 bits (new_encode_dev): 12 bits major, 20 bits minor."""
    major = (rdev >> 8 & 0xFFF) | (rdev >> 32 & 0xFFFFF000)
    minor = (rdev & 0xFF) | (rdev >> 12 & 0xFFFFFF00)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12 & 0xFFFFFFFF


class StatFs(NamedTuple):
    """What statvfs(3) shows; ``blocks``, ``free`` in units of ``block_size`` bytes."""

    blocks: int
    free: int
    files: int
    files_free: int
    block_size: int = 512
    name_max: int = 255

    def pack(self) -> bytes:
        """The body of a reply to STATFS."""
        return _statfs_out.pack(
            self.blocks, self.free, self.free, self.files, self.files_free,
            self.block_size, self.name_max, self.block_size, 0,
        )  # fmt: skip


def reply_header(unique: int, size: int) -> bytes:
    """The header of a reply whose body has ``size`` bytes."""
    return _reply_header.pack(_reply_header.size + size, 0, unique)


def error_reply(unique: int, number: int) -> bytes:
    """A complete reply: the request failed with the error ``number`` of errno(3)."""
    return _reply_header.pack(_reply_header.size, -number, unique)


def entry(node: int, attributes: bytes, *, entry_ttl: int = FOREVER, attribute_ttl: int = FOREVER) -> bytes:
    """The body that answers LOOKUP: the name refers to ``node``; ``attributes`` are packed."""
    return _entry_out.pack(node, 0, entry_ttl, attribute_ttl, 0, 0, attributes)


def no_entry(entry_ttl: int = FOREVER) -> bytes:
    """The body that answers LOOKUP: there is no such name, and the kernel may remember that."""
    return _entry_out.pack(0, 0, entry_ttl, 0, 0, 0, b"")


def attributes_reply(attributes: bytes, *, attribute_ttl: int = FOREVER) -> bytes:
    """The body that answers GETATTR; ``attributes`` are packed."""
    return _attribute_out.pack(attribute_ttl, 0, 0, attributes)


def attributes_in(reply: bytes) -> bytes:
    """The packed attributes in the result of ``attributes_reply``."""
    return reply[-_attributes.size :]


def directory_entry(name: bytes, inode: int, mode: int, following: int) -> bytes:
    """One entry of a body that answers READDIR.

    ``following`` is the offset at which a reader continues after this entry; of ``mode``, only the type
    matters.
    """
    length = len(name)
    return _dirent.pack(inode, following, length, mode >> 12) + name + _PADDING[length & 7]


def directory_entry_plus(name: bytes, inode: int, mode: int, following: int, looked_up: bytes) -> bytes:
    """One entry of a body that answers READDIRPLUS; ``looked_up`` is what LOOKUP would answer for it.

    The kernel counts it as a lookup, but not for ``.`` and ``..``, nor if it names no node.
    """
    length = len(name)
    return _direntplus.pack(looked_up, inode, following, length, mode >> 12) + name + _PADDING[length & 7]


def invalidate_inode(node: int) -> bytes:
    """A complete notification: forget the cached attributes and content of this node."""
    return _notification(Notification.INVAL_INODE, _inval_inode.pack(node, 0, 0))


def store_header(node: int, offset: int, size: int) -> bytes:
    """The header of a notification that gives the kernel ``size`` bytes of a file, which must follow it."""
    body = _store.pack(node, offset, size)
    return _reply_header.pack(_reply_header.size + len(body) + size, Notification.STORE, 0) + body


def _notification(code: Notification, body: bytes) -> bytes:
    """A notification: a reply to no request, with a code in place of the error."""
    return _reply_header.pack(_reply_header.size + len(body), code, 0) + body
