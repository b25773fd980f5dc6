"""One entry of a layer, and what its names may be.

Owns: the vocabulary, and the refusal of names that no file system should hold or that lead out of the layer.
Must not know: archives. Whiteouts (``.wh.NAME``) are entries like others here; their meaning belongs to
whoever stacks layers.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from cvmfs_graphdriver.oci.errors import LayerFormatError

__all__ = ["EntryKind", "LayerEntry", "layer_path"]

LONGEST_PATH = 4095
"""What Linux takes at once; a file may lie deeper all the same."""
_SLASH = ord("/")
_MAX_COMPONENT = 255
_NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class EntryKind(Enum):
    """What an entry is; a hard link is another name of an entry before it in the same layer."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    DIRECTORY = "directory"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


class LayerEntry(NamedTuple):
    """One entry of a layer's tar stream. A tuple, since there are hundreds of thousands.

    ``path`` is absolute within the layer (``b""`` its root, ``b"/a/b"`` else), bytes of any encoding.
    ``mode`` holds the permission bits with setuid, setgid and sticky; ``mtime`` seconds since 1970 and
    ``mtime_ns`` the nanoseconds above them; ``size`` the bytes of a file with its holes filled, else 0.
    ``linkname`` is the target of a symbolic link as it stands, or the path of a hard link's first name in
    the form of ``path``. ``device`` is the device number as ``os.makedev`` makes it. For a hard link
    the rest is what its own header says, which Docker gives to the file and other tools ignore.
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
    """The path that a member's name stands for: without leading ``./`` and ``/``, without trailing ``/``.

    Raises LayerFormatError: it leads upwards, holds a NUL, or is longer than ``longest`` bytes, which
    normally is what Linux takes.

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
        return b"/" + plain  # nearly all names, and nothing below would change them
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if not parts:
        return b""
    path = b"/" + b"/".join(parts)
    if b".." in parts:
        raise LayerFormatError(f"the name {name[:200]!r} leads out of the layer")
    if b"\0" in path:
        raise LayerFormatError(f"the name {name[:200]!r} holds a NUL")
    if len(path) > longest or max(map(len, parts)) > _MAX_COMPONENT:
        raise LayerFormatError(f"the name {name[:200]!r}… is too long: longer than Linux takes")
    return path
