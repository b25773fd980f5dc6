"""What goes into a repository: one entry of a tree, and where its bytes come from.

Owns: the vocabulary between a source (a layer, a directory) and ``ingest``. Must not know: tar, OCI.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["TreeEntry"]


_NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class TreeEntry(NamedTuple):
    """One entry below the directory that is ingested. A tuple, since there are hundreds of thousands.

    ``path`` is absolute within that directory (``b""`` is the directory itself), ``mode`` a whole st_mode,
    ``mtime`` in seconds, ``mtime_ns`` its fraction or None, ``hardlink`` the path of an entry that came
    earlier, of which this is another name (everything else is then taken from that one), ``rdev`` as
    ``os.makedev`` gives it.
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int | None = None
    symlink: bytes = b""
    hardlink: bytes | None = None
    rdev: int = 0
    xattrs: Mapping[bytes, bytes] = _NO_XATTRS
