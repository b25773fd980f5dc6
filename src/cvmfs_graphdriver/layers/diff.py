"""Packing a layer's directory as a tar stream.

Owns: the conversion from overlayfs' form to that of the OCI image specification: whiteouts become ``.wh.``
files, an opaque directory gets its mark, and names of one inode become hard links. Headers contain what
Docker writes: times in whole seconds, file capabilities, and extended attributes of the ``user.`` namespace.
Must not know: where the stream goes.

A running container may change the files meanwhile (``docker commit --pause=false``). Therefore each is opened
without following links and then accessed through its descriptor. Files that vanish are omitted; a file that
shrinks is padded with zeros, since its header has already been written.
"""

import os
import stat
import tarfile
from io import BufferedIOBase, FileIO
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.overlay import OPAQUE_MARK, is_whiteout, whiteout_of
from cvmfs_graphdriver.layers.directories import Directories, Part
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
_GONE = (FileNotFoundError, NotADirectoryError, PathEscapeError)


def write_diff(diff: Path, out: BufferedIOBase, owners: Owners) -> None:
    """Write the layer in ``diff`` to ``out``. Raises OSError, UnmappedOwnerError."""
    with (
        tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
        Directories() as opened,
    ):
        _Packing(Part(os.fsencode(diff)), opened, tar, owners).run()


class _Packing:
    """Packing one layer. It is not recursive: directories may be nested deeper than Python's stack allows."""

    def __init__(self, root: Part, opened: Directories, tar: tarfile.TarFile, owners: Owners) -> None:
        self._root = root
        self._opened = opened
        self._tar = tar
        self._owners = owners
        self._links: dict[int, str] = {}

    def run(self) -> None:
        """Write all entries in the order of their names, each directory before its contents."""
        pending = [(self._root, self._names(self._root))]
        while pending:
            here, names = pending[-1]
            if not names:
                pending.pop()
                continue
            name = names.pop()
            try:
                directory = self._opened.open(here)
                descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            except _GONE:
                continue
            try:
                is_directory = self._entry(here, name, descriptor)
            finally:
                os.close(descriptor)
            if is_directory:
                pending.append((here.below(name), self._names(here.below(name))))

    def _names(self, directory: Part) -> list[bytes]:
        """The names in a directory, in reverse order."""
        try:
            return sorted(map(os.fsencode, os.listdir(self._opened.open(directory))), reverse=True)
        except _GONE:
            return []

    def _entry(self, here: Part, name: bytes, descriptor: int) -> bool:
        """Write one entry; returns whether it is a directory, whose contents are to follow."""
        path = here.below(name).path
        status = os.fstat(descriptor)
        kind = stat.S_IFMT(status.st_mode)
        if is_whiteout(status.st_mode, status.st_rdev):
            mark = tarfile.TarInfo(os.fsdecode(here.below(whiteout_of(name)).path))
            mark.mode, mark.mtime = _WHITEOUT_MODE, status.st_mtime_ns // 1_000_000_000
            self._tar.addfile(mark)
            return False
        if kind not in _TYPES:
            return False  # a socket is useless without its process
        header = self._header(path, descriptor, status)
        if kind == stat.S_IFDIR:
            self._tar.addfile(header)
            if is_opaque(_place(descriptor), follow=True):
                mark = tarfile.TarInfo(os.fsdecode(path + b"/" + OPAQUE_MARK))
                mark.mode, mark.mtime = header.mode & 0o777, header.mtime
                mark.uid, mark.gid = header.uid, header.gid
                self._tar.addfile(mark)
            return True
        first = self._links.get(status.st_ino)
        if first is not None:
            header.type, header.linkname, header.size = tarfile.LNKTYPE, first, 0
            self._tar.addfile(header)
            return False
        if status.st_nlink > 1:
            self._links[status.st_ino] = header.name
        if kind == stat.S_IFREG:
            with open(_place(descriptor), "rb", buffering=0) as file:
                self._tar.addfile(header, _Filled(file))
        else:
            self._tar.addfile(header)
        return False

    def _header(self, path: bytes, descriptor: int, status: os.stat_result) -> tarfile.TarInfo:
        header = tarfile.TarInfo(os.fsdecode(path))
        kind = stat.S_IFMT(status.st_mode)
        header.type = _TYPES[kind]
        header.mode = stat.S_IMODE(status.st_mode)
        header.uid = self._owners.users.inward(status.st_uid)
        header.gid = self._owners.groups.inward(status.st_gid)
        header.mtime = status.st_mtime_ns // 1_000_000_000
        if kind == stat.S_IFREG:
            header.size = status.st_size
        elif kind == stat.S_IFLNK:
            header.linkname = os.fsdecode(os.readlink(b"", dir_fd=descriptor))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        header.pax_headers = _xattrs(_place(descriptor))
        return header


class _Filled:
    """A file that never ends: it is continued with zeros."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        return data if len(data) == size else data.ljust(size, b"\0")


def _place(descriptor: int) -> bytes:
    """A path to the opened file itself, even if it was moved or is a symbolic link."""
    return b"/proc/self/fd/%d" % descriptor


def _xattrs(path: bytes) -> dict[str, str]:
    """The attributes that belong in a layer, as header records."""
    found = {}
    for name in os.listxattr(path):
        if name != _CAPABILITY and not name.startswith("user."):
            continue
        value = os.getxattr(path, name)
        if name == _CAPABILITY and value[_REVISION] == _WITH_ROOT:
            # The root user of a namespace on this machine is meaningless elsewhere.
            value = value[:_REVISION] + bytes([_PLAIN]) + value[_REVISION + 1 : _PLAIN_SIZE]
        found[_XATTR + name] = value.decode("utf-8", "surrogateescape")
    return found
