"""A layer's directory as a layer's tar stream.

Owns: the way back from overlayfs' form to the OCI image specification's: deletions become ``.wh.`` files, an
opaque directory gets its mark, names of one inode become hard links. What goes into a header is what
Docker puts there: whole seconds, and of the extended attributes file capabilities and the user's own.
Must not know: where the stream goes.
"""

import os
import stat
import tarfile
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.kernel.overlay import OPAQUE_MARK, is_whiteout, whiteout_of
from cvmfs_graphdriver.layers.idmap import Owners
from cvmfs_graphdriver.layers.merged import is_opaque

__all__ = ["write_diff"]

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_XATTR = "SCHILY.xattr."
_CAPABILITY = "security.capability"
_REVISION, _PLAIN, _WITH_ROOT, _PLAIN_SIZE = 3, 2, 3, 20
_WHITEOUT_MODE = 0o600


def write_diff(diff: Path, out: BufferedIOBase, owners: Owners) -> None:
    """Write the layer in ``diff`` to ``out``. Raises OSError of either, UnmappedOwnerError."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        _Writer(os.fsencode(diff), tar, owners).directory(b"")


class _Writer:
    """One run over one layer."""

    def __init__(self, root: bytes, tar: tarfile.TarFile, owners: Owners) -> None:
        self._root = root
        self._tar = tar
        self._owners = owners
        self._links: dict[int, str] = {}

    def directory(self, path: bytes) -> None:
        """Everything in a directory, in the order of names."""
        with os.scandir(self._root + b"/" + path) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            self._entry(path, name)

    def _entry(self, where: bytes, name: bytes) -> None:
        path = where + name
        status = os.lstat(self._root + b"/" + path)
        kind = stat.S_IFMT(status.st_mode)
        if is_whiteout(status.st_mode, status.st_rdev):
            mark = tarfile.TarInfo(os.fsdecode(where + whiteout_of(name)))
            mark.mode, mark.mtime = _WHITEOUT_MODE, status.st_mtime_ns // 1_000_000_000
            self._tar.addfile(mark)
            return
        if kind not in _TYPES:
            return  # a socket means nothing without its process
        header = self._header(path, status)
        if kind == stat.S_IFDIR:
            self._tar.addfile(header)
            if is_opaque(self._root + b"/" + path):
                mark = tarfile.TarInfo(os.fsdecode(path + b"/" + OPAQUE_MARK))
                mark.mode, mark.mtime = header.mode & 0o777, header.mtime
                mark.uid, mark.gid = header.uid, header.gid
                self._tar.addfile(mark)
            self.directory(path + b"/")
            return
        first = self._links.get(status.st_ino)
        if first is not None:
            header.type, header.linkname, header.size = tarfile.LNKTYPE, first, 0
            self._tar.addfile(header)
            return
        if status.st_nlink > 1:
            self._links[status.st_ino] = header.name
        if kind == stat.S_IFREG:
            with open(self._root + b"/" + path, "rb") as file:
                self._tar.addfile(header, file)
        else:
            self._tar.addfile(header)

    def _header(self, path: bytes, status: os.stat_result) -> tarfile.TarInfo:
        header = tarfile.TarInfo(os.fsdecode(path))
        kind = stat.S_IFMT(status.st_mode)
        header.type = _TYPES[kind]
        header.mode = stat.S_IMODE(status.st_mode)
        header.uid = self._owners.users.inward(status.st_uid)
        header.gid = self._owners.groups.inward(status.st_gid)
        header.mtime = status.st_mtime_ns // 1_000_000_000
        where = self._root + b"/" + path
        if kind == stat.S_IFREG:
            header.size = status.st_size
        elif kind == stat.S_IFLNK:
            header.linkname = os.fsdecode(os.readlink(where))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        header.pax_headers = _xattrs(where)
        return header


def _xattrs(path: bytes) -> dict[str, str]:
    """The attributes that belong into a layer, as records of a header."""
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if name != _CAPABILITY and not name.startswith("user."):
            continue
        value = os.getxattr(path, name, follow_symlinks=False)
        if name == _CAPABILITY and value[_REVISION] == _WITH_ROOT:
            # Who is root in a user namespace of this machine means nothing elsewhere.
            value = value[:_REVISION] + bytes([_PLAIN]) + value[_REVISION + 1 : _PLAIN_SIZE]
        found[_XATTR + name] = value.decode("utf-8", "surrogateescape")
    return found
