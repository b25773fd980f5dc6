"""One entry of a layer, and which names it may have.

Owns: the vocabulary, and refusing names that no file system should hold or that lead out of the layer. Must
not know: archives. Whiteouts (``.wh.NAME``) are ordinary entries here; their meaning is up to whoever stacks
layers.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from cvmfs_graphdriver.oci.errors import LayerFormatError

__all__ = ["EntryKind", "LayerEntry", "layer_path"]

LONGEST_PATH = 4095
"""The longest path that Linux takes in one call; files may still lie deeper."""
_SLASH = ord("/")
_MAX_COMPONENT = 255
_NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class EntryKind(Enum):
    """What an entry is; a hard link is another name for an earlier entry of the same layer."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    DIRECTORY = "directory"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


class LayerEntry(NamedTuple):
    """One entry of a layer's tar stream. A tuple, since there are hundreds of thousands.

    ``path`` is absolute within the layer (``b""`` is its root, otherwise e.g. ``b"/a/b"``), bytes in any
    encoding. ``mode`` holds the permission bits with setuid, setgid and sticky; ``mtime`` the seconds since
    1970 and ``mtime_ns`` the remaining nanoseconds; ``size`` the bytes of a file including its holes,
    otherwise 0. ``linkname`` is the literal target of a symbolic link, or the path of a hard link's first
    name in the form of ``path``. ``device`` is the device number as ``os.makedev`` returns it. The remaining
    fields of a hard link are those of its own header, which Docker applies to the file and other tools
    ignore.
    """

    path: bytes
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    size: int = 0
    linkname: bytes = b""
    device: int = 0
    xattrs: Mapping[bytes, bytes] = _NO_XATTRS


def layer_path(name: bytes, longest: int = LONGEST_PATH) -> bytes:
    """A member's name as an absolute path, without ``.`` components and doubled or trailing slashes.

    Raises LayerFormatError: it leads upwards, contains a NUL, or is longer than ``longest`` bytes.

    >>> layer_path(b"./usr//bin/")
    b'/usr/bin'
    """
    plain = name.removeprefix(b"./").removesuffix(b"/")
    if (
        plain
        and len(plain) <= _MAX_COMPONENT
        and plain[0] not in b"/."
        and plain[-1] != _SLASH
        and not (b"//" in plain or b"/." in plain or b"\0" in plain)
    ):
        return b"/" + plain  # the usual case, which nothing below would change
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if not parts:
        return b""
    path = b"/" + b"/".join(parts)
    if b".." in parts:
        raise LayerFormatError(f"the name {name[:200]!r} leads out of the layer")
    if b"\0" in path:
        raise LayerFormatError(f"the name {name[:200]!r} contains a NUL")
    if len(path) > longest or max(map(len, parts)) > _MAX_COMPONENT:
        raise LayerFormatError(f"the name {name[:200]!r}… is longer than Linux allows")
    return path
