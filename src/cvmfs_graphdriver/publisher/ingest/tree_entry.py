"""One entry of a tree that goes into a repository.

Owns: the vocabulary between a source (a layer, a directory) and ``ingest``. Must not know: tar, OCI.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["TreeEntry"]


_NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class TreeEntry(NamedTuple):
    """One entry of an ingested tree. A tuple, since there are hundreds of thousands.

    ``path`` is absolute within the tree (``b""`` is its root), ``mode`` a full st_mode, ``mtime`` in seconds,
    ``mtime_ns`` its fraction or None, ``hardlink`` the path of an earlier entry of which this is another name
    (everything else is then taken from that entry), ``rdev`` as ``os.makedev`` returns it.
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
