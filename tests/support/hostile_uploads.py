"""Layers as no honest node uploads them: tars damaged by field, bombs, and damaged compression."""

import bz2
import gzip
import lzma
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator

import zstandard

from tests.support.mutations import SEED, mutations
from tests.support.tars import tar_of

__all__ = ["hostile_uploads"]

_BLOCK = 512
_FIELDS = (
    *((0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 6), (263, 2)),
    *((265, 32), (297, 32), (329, 8), (337, 8), (345, 155), (386, 12), (482, 1), (483, 12)),
)
"""Place and size of the fields of a header, the fields of GNU's sparse files last."""
_NAMES = (
    *(b"", b".", b"..", b"/", b"//", b"../../etc/passwd", b"/etc/shadow", b"a/../../b", b"etc", b"etc/file"),
    *(b".wh.", b".wh..wh..opq", b".wh.file", b"etc/.wh..wh..opq", b".wh..", b".cvmfscatalog", b".cvmfs"),
    *(b"a\0b", b"\xff\xfe", b"n" * 100, b"a/" * 49, b"etc/file/below", b"./etc/", b"\x1b[2J", b"link/file"),
)
_NUMBERS = (
    *(b"0", b"7" * 11, b"-1", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(10) + b"\x01", b"9" * 11),
    *(b"", b" ", b"1 2", b"0x10", b"1" * 7, b"\x80" + b"\x7f" * 11),
)
_PAX = (
    *(
        b"path",
        b"linkpath",
        b"size",
        b"uid",
        b"gid",
        b"mtime",
        b"charset",
        b"comment",
        b"SCHILY.xattr.user.a",
    ),
    *(
        b"SCHILY.xattr.security.capability",
        b"SCHILY.xattr.",
        b"GNU.sparse.map",
        b"GNU.sparse.size",
        b"hdrcharset",
    ),
    *(
        b"GNU.sparse.realsize",
        b"GNU.sparse.major",
        b"GNU.sparse.minor",
        b"GNU.sparse.name",
        b"GNU.sparse.numblocks",
    ),
    *(b"SCHILY.devmajor", b"LIBARCHIVE.xattr.user.b", b"", b"atime"),
)
_PAX_VALUES = (
    *_NAMES,
    *_NUMBERS,
    b"1e300",
    b"nan",
    b"-0.5",
    b"1.9999999999",
    b"0,5,9,1",
    b"9,1,0,5",
    b"v" * 70_000,
)
_KINDS = b"01234567xgLKSDNAVMX\0 \xff"


def hostile_uploads(count: int, *, limit: int) -> Iterator[bytes]:
    """``count`` uploads; bombs unpack to more than ``limit`` bytes."""
    chance = random.Random(SEED)
    good = list(_good())
    blobs = [pack(tar) for tar in good for pack in _PACKERS]
    damaged = mutations(blobs, count)
    for _ in range(count):
        match chance.randrange(30):
            case 0 | 1 | 2:
                yield next(damaged)
            case 3:
                yield _bomb(chance, limit)
            case 4 | 5:
                yield _numbered(chance)
            case _:
                tar = bytearray(chance.choice(good))
                for _ in range(chance.choice((1, 1, 2, 4))):
                    chance.choice(_WAYS)(tar, chance)
                yield (chance.choice(_PACKERS) if chance.random() < 0.3 else bytes)(bytes(tar))


def _good() -> Iterator[bytes]:
    sparse = tarfile.TarInfo("sparse")
    sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9999"}
    link, device = tarfile.TarInfo("hard"), tarfile.TarInfo("null")
    link.type, link.linkname = tarfile.LNKTYPE, "etc/file"
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    attributed = tarfile.TarInfo("attributed")
    attributed.pax_headers = {"SCHILY.xattr.user.a": "b" * 200, "mtime": "1.5"}
    tree = {"etc": None, "etc/file": b"content" * 100, "link": "etc", "n" * 150: b"long", ".wh.gone": b""}
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        yield tar_of(tree, link, device, form=form)
    yield tar_of(tree, link, device, sparse, attributed, ("etc/.wh..wh..opq", b""))
    yield tar_of(("only", b""))


# Damage to a tar


def _header(tar: bytearray, chance: random.Random) -> int:
    """The place of a block, mostly one that looks like a header."""
    blocks = range(0, len(tar) - _BLOCK + 1, _BLOCK)
    headers = [at for at in blocks if tar[at + 257 : at + 262] == b"ustar"]
    return chance.choice(headers if headers and chance.random() < 0.9 else blocks) if blocks else 0


def _field(tar: bytearray, chance: random.Random) -> None:
    at = _header(tar, chance)
    place, size = chance.choice(_FIELDS)
    choices = _NUMBERS if size in {8, 12} else _NAMES
    value = (
        bytes((chance.choice(_KINDS),)) if size == 1 else chance.choice((*choices, chance.randbytes(size)))
    )
    _replace(tar, at + place, value[:size].ljust(size, b"\0"))
    if chance.random() < 0.95:
        _mend(tar, at)


def _block(tar: bytearray, chance: random.Random) -> None:
    """Blocks dropped, doubled, moved or made up."""
    at, other = _header(tar, chance), _header(tar, chance)
    match chance.randrange(5):
        case 0:
            del tar[at : at + _BLOCK]
        case 1:
            tar[at:at] = tar[other : other + chance.choice((1, 2, 4)) * _BLOCK]
        case 2:
            del tar[chance.randrange(len(tar) + 1) :]
        case 3:
            tar += chance.choice((b"x", bytes(_BLOCK), bytes(5000), tar[:4096]))
        case _:
            tar[at:at] = chance.randbytes(_BLOCK)


def _extended(tar: bytearray, chance: random.Random) -> None:
    """Another extended header before a member."""
    records = b"".join(_record(chance) for _ in range(chance.choice((1, 1, 2, 20))))
    size = chance.choice((len(records), len(records), len(records) - 1, len(records) + 1, 10**9))
    head = bytearray(_BLOCK)
    _replace(head, 0, b"PaxHeader")
    _replace(head, 100, b"0000644\0")
    _replace(head, 124, b"%011o\0" % size)
    _replace(head, 156, bytes((chance.choice(b"xxxgLK"),)))
    _replace(head, 257, b"ustar\x0000")
    _mend(head, 0)
    at = _header(tar, chance)
    tar[at:at] = head + records.ljust(-(-len(records) // _BLOCK) * _BLOCK, b"\0")


def _record(chance: random.Random) -> bytes:
    body = b" %b=%b\n" % (chance.choice(_PAX), chance.choice(_PAX_VALUES))
    length = len(body) + 1
    while length != (again := len(body) + len(str(length))):
        length = again
    odd = (b"-1", b"0", b"9" * 20, b"", b"%d" % (length + 1), b"%d" % (length - 1))
    return (chance.choice(odd) if chance.random() < 0.15 else b"%d" % length) + body


def _replace(data: bytearray, place: int, value: bytes) -> None:
    value = value[: max(0, len(data) - place)]
    data[place : place + len(value)] = value


def _mend(tar: bytearray, at: int) -> None:
    """Make the checksum of a header right."""
    _replace(tar, at + 148, b" " * 8)
    _replace(tar, at + 148, b"%06o\0 " % sum(tar[at : at + _BLOCK]))


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (_field, _field, _field, _block, _extended)


# Compression


def _zstd(data: bytes) -> bytes:
    return zstandard.compress(data)


_PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    gzip.compress,
    _zstd,
    bz2.compress,
    lzma.compress,
    zlib.compress,
)


def _bomb(chance: random.Random, limit: int) -> bytes:
    """A little that unpacks to much, or to nothing for ever."""
    zeros = bytes(limit + chance.randrange(_BLOCK * 4))
    match chance.randrange(6):
        case 0:
            return chance.choice((gzip.compress, _zstd))(tar_of(("zeros", zeros)))
        case 1:
            return chance.choice((gzip.compress, _zstd))(tar_of(("file", b"")) + zeros)
        case 2:  # members that are empty
            return gzip.compress(b"") * chance.choice((100, 20_000)) + gzip.compress(tar_of(("file", b"")))
        case 3:  # a name in gzip's header that does not end
            return b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * chance.choice((100, 100_000))
        case 4:  # stored blocks of no bytes
            return b"\x1f\x8b\x08" + bytes(7) + b"\x00\x00\x00\xff\xff" * 10_000
        case _:
            sparse = tarfile.TarInfo("holes")
            size = chance.choice((limit + 1, 1 << 40, 1 << 62))
            sparse.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"{size},0"}
            return gzip.compress(tar_of(sparse))


def _numbered(chance: random.Random) -> bytes:
    """Many small members, some in one another's place."""
    count = chance.choice((5, 30, 99, 101, 300))
    names = {
        f"{'d/' * chance.randrange(9)}{chance.randrange(count)}": b"x" * chance.randrange(50)
        for _ in range(count)
    }
    return (bytes if chance.random() < 0.5 else gzip.compress)(tar_of(names))
