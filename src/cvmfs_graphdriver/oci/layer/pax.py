"""Tar's extended headers: PAX records (POSIX.1-2017, pax, "pax Extended Header").

Owns: records, times with fractions, extended attributes (``SCHILY.xattr.`` of star and Go,
``LIBARCHIVE.xattr.`` of libarchive). Must not know: the blocks of an archive.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from cvmfs_graphdriver.oci.errors import LayerFormatError

__all__ = ["Records", "parse_records", "parse_time", "read_xattrs"]

Records = Mapping[bytes, bytes]

_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_TIME = re.compile(rb"(-?)([0-9]{1,15})(?:\.([0-9]*))?")
_SPARSE_LISTS: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_MAX_XATTR_NAME: Final = 255
_MAX_XATTR_VALUE: Final = 64 << 10


def parse_records(name: str, data: bytes) -> dict[bytes, bytes]:
    r"""Parse records ``LENGTH KEY=VALUE\n``; the last value of a repeated key counts, as POSIX specifies.

    Values of the keys that GNU's sparse format 0.0 repeats on purpose are joined with commas.

    Raises LayerFormatError: a record is malformed.

    >>> parse_records("x", b"12 uid=4321\n")
    {b'uid': b'4321'}
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            raise LayerFormatError(f"{name}: an extended header is damaged")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise LayerFormatError(f"{name}: an extended header is damaged")
        if key in _SPARSE_LISTS and key in records:
            value = records[key] + b"," + value
        records[key] = value
        position = end
    return records


def parse_time(name: str, text: bytes) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds (0 to 999 999 999) of a decimal number, truncated.

    >>> parse_time("x", b"-1.25")
    (-2, 750000000)
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise LayerFormatError(f"{name}: {text[:40]!r} is not a time")
    sign, whole, fraction = match.groups()
    total = int(whole) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return divmod(-total if sign else total, 1_000_000_000)


def read_xattrs(name: str, records: Records) -> dict[bytes, bytes]:
    """The extended attributes in the records, by their full names (``security.capability``).

    A record without a value is an attribute with an empty value: GNU tar and Docker since 26 write and read
    them so, although for POSIX's own keywords it would mean to unset the keyword.

    Raises LayerFormatError: Linux cannot hold an attribute, or its encoding is damaged.
    """
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_SCHILY):
            xattrs[key[len(_SCHILY) :]] = value
        elif key.startswith(_LIBARCHIVE):
            plain = unquote_to_bytes(key[len(_LIBARCHIVE) :])
            try:
                xattrs.setdefault(plain, binascii.a2b_base64(value + b"=" * (-len(value) % 4)))
            except binascii.Error as error:
                raise LayerFormatError(f"{name}: the attribute {plain[:80]!r} is damaged") from error
    for key, value in xattrs.items():
        if not key or b"\0" in key or len(key) > _MAX_XATTR_NAME or len(value) > _MAX_XATTR_VALUE:
            raise LayerFormatError(f"{name}: Linux cannot hold the extended attribute {key[:80]!r}")
    return xattrs
