"""The blob that holds an entry's extended attributes (CernVM-FS format reference, section 3.7).

Owns: its bytes. Must not know: which attributes are worth keeping.
"""

from collections.abc import Mapping

from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["encode_xattrs", "parse_xattrs"]

_VERSION = 1
_LIMIT = 255


def parse_xattrs(blob: bytes) -> dict[bytes, bytes]:
    """Names and values. Raises FormatError: unknown version, or lengths that exceed the blob."""
    if not blob:
        return {}
    if blob[0] != _VERSION:
        raise FormatError(f"extended attributes of version {blob[0]} cannot be read")
    if len(blob) < 2:
        raise FormatError("the extended attributes are cut short")
    attributes = {}
    at = 2
    for _ in range(blob[1]):
        if at + 2 > len(blob):
            raise FormatError("the extended attributes are cut short")
        middle = at + 2 + blob[at]
        end = middle + blob[at + 1]
        if end > len(blob):
            raise FormatError("the extended attributes are cut short")
        attributes[blob[at + 2 : middle]] = blob[middle:end]
        at = end
    return attributes


def encode_xattrs(attributes: Mapping[bytes, bytes]) -> bytes:
    """The blob, in the order of names; empty for no attributes.

    Raises FormatError: more than 255 of them, a name or value longer than 255 bytes (a length is one byte).
    """
    if not attributes:
        return b""
    if len(attributes) > _LIMIT:
        raise FormatError(f"{len(attributes)} extended attributes exceed the limit of {_LIMIT}")
    blob = bytearray((_VERSION, len(attributes)))
    for name in sorted(attributes):
        value = attributes[name]
        if not name or len(name) > _LIMIT or len(value) > _LIMIT:
            raise FormatError(
                f"the extended attribute {name[:80]!r} does not fit: its name has {len(name)} bytes, "
                f"its value {len(value)}, and the format allows {_LIMIT} each"
            )
        blob += bytes((len(name), len(value))) + name + value
    return bytes(blob)
