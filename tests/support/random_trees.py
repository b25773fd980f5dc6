"""Random trees for EROFS images: every kind of entry, with the lengths and numbers at which formats break."""

import os
import random
import stat
import struct
from typing import Any

from cvmfs_graphdriver.kernel.erofs import Directory, Inode

__all__ = ["random_forest", "spoil"]

_LENGTHS = (1, 1, 2, 8, 8, 8, 15, 16, 100, 254, 255)
_TARGETS = (1, 5, 5, 5, 60, 255, 2000, 3900, 4000, 4030, 4094, 4095)
_SIZES = (0, 0, 1, 5, 4095, 4096, 4097, 2**31 - 1, 2**32, 2**40 + 1, 4096 << 31)
_IDS = (0, 0, 1, 1000, 65534, 65536, 2**31, 2**32 - 2)
_TIMES = (0, 1, -1, 1_700_000_000, 2**31, 2**33, -(2**31), 2**40)
_COUNTS = (0, 1, 1, 2, 3, 5, 8, 20)
_MANY = (60, 130, 300)
_VALUES = (0, 1, 1, 10, 100, 255, 1000, 3800, 4096, 20_000)
_PREFIXES = (b"trusted.", b"trusted.overlay.", b"security.")
_SPECIAL = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_NO_ID = 0xFFFFFFFF
_ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 7, _NO_ID, 2, 4, 5, 4, 5, _NO_ID, 0x10, 5, _NO_ID, 0x20, 0, _NO_ID)
"""An access list as the kernel takes it: u::rwx,u:5:r--,g::r-x,m::r-x,o::---."""


def random_forest(chance: random.Random, trees: int) -> Directory:
    """A root with so many trees."""
    return Directory(children={b"%d" % number: _tree(chance) for number in range(trees)})


def spoil(root: Directory, chance: random.Random) -> None:
    """Give an entry something that no image can hold."""
    directory = root
    while (below := [child for child in directory.children.values() if isinstance(child, Directory)]) and (
        chance.random() < 0.7
    ):
        directory = chance.choice(below)
    bad = _file(chance)
    directory.children[b"spoilt"] = bad
    match chance.randrange(7):
        case 0:
            bad.uid = chance.choice((-1, 2**32))
        case 1:
            bad.mtime = chance.choice((2**63, -(2**63) - 1))
        case 2:
            bad.mtime_ns = chance.choice((-1, 2**32))
        case 3:
            unknown = {b"user." + b"n" * 256: b""}, {b"user.v": bytes(65536)}, {b"odd.name": b""}, {b"": b""}
            many = {b"user.%d" % number: bytes(60_000) for number in range(5)}
            bad.xattrs = chance.choice((*unknown, many))
        case 4:
            bad.mode = chance.choice((0o644, stat.S_IFDIR | 0o755, 0o150644))
        case 5:
            bad.links = 2**32
        case _:
            bad.size, bad.target = chance.choice((((4096 << 31) + 1, b""), (0, b"t" * 4096), (2**70, b"")))


def _tree(chance: random.Random) -> Directory:
    root = _directory(chance)
    directories, files = [root], list[Inode]()
    for _ in range(chance.choice(_MANY) if chance.random() < 0.02 else chance.choice(_COUNTS)):
        parent = directories[-1] if chance.random() < 0.3 else chance.choice(directories)
        name = _name(chance)
        if chance.random() < 0.3:
            directories.append(_directory(chance))
            parent.children[name] = directories[-1]
        elif files and chance.random() < 0.15:
            parent.children[name] = linked = chance.choice(files)
            linked.links = chance.choice((2, 3, 65536, 2**32 - 1))
        else:
            files.append(chance.choice((_file, _file, _symlink, _special))(chance))
            parent.children[name] = files[-1]
    if chance.random() < 0.05:
        _deepen(directories[-1], chance)
    return root


def _deepen(directory: Directory, chance: random.Random) -> None:
    """More directories in one another than a path can name."""
    for _ in range(chance.choice((10, 50, 120))):
        child = _directory(chance)
        directory.children[_name(chance)] = child
        directory = child


def _name(chance: random.Random) -> bytes:
    length = chance.choice(_LENGTHS)
    letters = chance.choice((b"ab", b"\xff\x01 \n", "ä".encode(), bytes(range(1, 256)), b".", b"-A~"))
    name = bytes(chance.choices(letters, k=length)).replace(b"/", b"_")
    return name if name not in {b".", b".."} else b"..."


def _shared(chance: random.Random) -> dict[str, Any]:
    return {
        "uid": chance.choice(_IDS),
        "gid": chance.choice(_IDS),
        "mtime": chance.choice(_TIMES),
        "mtime_ns": chance.choice((0, 0, 1, 999_999_999)),
    }


def _xattrs(chance: random.Random, kind: int) -> dict[bytes, bytes] | None:
    """Attributes that Linux shows for such a file: symbolic links have no access lists."""
    if chance.random() < 0.6:
        return None
    prefixes = (*_PREFIXES, b"user.") if kind in {stat.S_IFREG, stat.S_IFDIR} else _PREFIXES
    found = {
        (chance.choice(prefixes) + _name(chance))[:255]: chance.randbytes(chance.choice(_VALUES))
        for _ in range(chance.choice((0, 1, 1, 2, 5, 12)))
    }
    if kind != stat.S_IFLNK and chance.random() < 0.1:
        found[b"system.posix_acl_access"] = _ACL
    return found


def _directory(chance: random.Random) -> Directory:
    return Directory(
        stat.S_IFDIR | chance.randrange(0o10000), xattrs=_xattrs(chance, stat.S_IFDIR), **_shared(chance)
    )


def _file(chance: random.Random) -> Inode:
    mode, size = stat.S_IFREG | chance.randrange(0o10000), chance.choice(_SIZES)
    redirect = b"/" + _name(chance) + b"/x" if size and chance.random() < 0.5 else None
    return Inode(mode, size=size, redirect=redirect, xattrs=_xattrs(chance, stat.S_IFREG), **_shared(chance))


def _symlink(chance: random.Random) -> Inode:
    target = bytes(chance.choices(range(1, 256), k=chance.choice(_TARGETS)))
    return Inode(stat.S_IFLNK | 0o777, target=target, xattrs=_xattrs(chance, stat.S_IFLNK), **_shared(chance))


def _special(chance: random.Random) -> Inode:
    kind = chance.choice(_SPECIAL)
    rdev = os.makedev(chance.choice((0, 0, 1, 259, 4095)), chance.choice((0, 0, 3, 255, 256, 2**20 - 1)))
    if kind not in {stat.S_IFCHR, stat.S_IFBLK}:
        rdev = 0
    return Inode(kind | chance.randrange(0o10000), rdev=rdev, xattrs=_xattrs(chance, kind), **_shared(chance))
