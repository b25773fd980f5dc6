"""A layer's tar stream on its way into a layer's directory.

Owns: what each entry becomes on disk. The rules are those of Docker's overlay2 driver: whiteouts get
overlayfs' form, later entries replace earlier ones, directories get their times last, and the root directory
keeps the attributes it was made with. The stream is hostile: nothing is created but through descriptors of
directories inside the layer, no link is followed on the way, and attributes that overlayfs would obey are
escaped. Must not know: where the stream comes from.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.kernel.overlay import (
    OPAQUE_MARK,
    OPAQUE_VALUE,
    OPAQUE_XATTR,
    WHITEOUT_DEVICE,
    WHITEOUT_MODE,
    escape_xattr,
    hidden_by,
    is_mark,
)
from cvmfs_graphdriver.layers.errors import ApplyError
from cvmfs_graphdriver.oci.entry import EntryKind, LayerEntry
from cvmfs_graphdriver.oci.errors import OciError
from cvmfs_graphdriver.oci.tar import TarReader
from cvmfs_graphdriver.oci.thin import ThinImage
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["apply_layer"]

_THIN = b"/thin.json"
_READ = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_SPECIAL = {
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_IGNORED_XATTR_ERRORS = (errno.ENOTSUP, errno.EPERM)  # as Docker does: the file system has no such thing


def apply_layer(source: ByteSource, diff: Path) -> tuple[int, ThinImage | None]:
    """Unpack the tar stream ``source`` into the empty directory ``diff``.

    Returns the bytes in its files, and what the layer stands for if it is a thin one. Raises ApplyError: the
    stream is broken or hostile, the disk is full; the directory is then worthless.
    """
    root = os.open(diff, _DIRECTORY | os.O_CLOEXEC)
    try:
        writer = _Writer(root)
        tar = TarReader("the layer", source)
        only = True
        for entry in tar:
            only = only and entry.path in (b"", _THIN)
            writer.write(entry, tar.read)
        writer.finish()
        if only and writer.has_thin:
            with open(open_beneath(root, _THIN[1:], os.O_RDONLY), "rb") as file:
                return writer.size, ThinImage.parse(file.read())
        return writer.size, None  # noqa: TRY300
    except OciError as error:
        raise ApplyError(f"the layer is refused: {error}") from error
    except PathEscapeError as error:
        raise ApplyError(f"the layer is refused: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApplyError(f"there is no space left in {diff} for the layer") from error
        name = os.fsdecode(error.filename) if error.filename else str(diff)
        raise ApplyError(f"cannot unpack {name} of the layer: {error.strerror}") from error
    finally:
        os.close(root)


class _Writer:
    """One run into one directory."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._times: dict[bytes, int] = {}
        self.size = 0
        self.has_thin = False

    def write(self, entry: LayerEntry, read: Callable[[int], bytes]) -> None:
        """Create one entry."""
        path = entry.path[1:]
        if not path:
            return
        where, _, name = path.rpartition(b"/")
        parent = self._open_directory(where)
        try:
            if is_mark(name):
                self._mark(parent, name)
                return
            kind = entry.kind
            if kind is EntryKind.DIRECTORY:
                self._directory(parent, name)
            else:
                _clear(parent, name)
                self._times.pop(path, None)
                if kind is EntryKind.HARD_LINK:
                    self._link(parent, name, entry.linkname[1:])
                    return
                if kind is EntryKind.FILE:
                    self._file(parent, name, entry, read)
                elif kind is EntryKind.SYMLINK:
                    os.symlink(entry.linkname, name, dir_fd=parent)
                else:
                    os.mknod(name, _SPECIAL[kind] | 0o600, entry.device, dir_fd=parent)
            self._describe(parent, name, path, entry)
        finally:
            os.close(parent)

    def finish(self) -> None:
        """Give directories their times, which no later entry changes any more."""
        for path, time in self._times.items():
            directory = open_beneath(self._root, path, _DIRECTORY)
            try:
                os.utime(directory, ns=(time, time))
            finally:
                os.close(directory)

    def _open_directory(self, path: bytes) -> int:
        """A directory of the layer; missing ones are made as Docker makes them."""
        try:
            return open_beneath(self._root, path, _DIRECTORY)
        except FileNotFoundError:
            where, _, name = path.rpartition(b"/")
            parent = self._open_directory(where)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            finally:
                os.close(parent)
            return open_beneath(self._root, path, _DIRECTORY)

    def _mark(self, parent: int, name: bytes) -> None:
        if name == OPAQUE_MARK:
            os.setxattr(parent, OPAQUE_XATTR, OPAQUE_VALUE)
            return
        hidden = hidden_by(name)
        if hidden is not None:
            _clear(parent, hidden)
            os.mknod(hidden, WHITEOUT_MODE, WHITEOUT_DEVICE, dir_fd=parent)

    @staticmethod
    def _directory(parent: int, name: bytes) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mkdir(name, 0o755, dir_fd=parent)
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)

    def _file(self, parent: int, name: bytes, entry: LayerEntry, read: Callable[[int], bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            while data := read(_READ):
                view = memoryview(data)
                while view:
                    view = view[os.write(file, view) :]
        finally:
            os.close(file)
        self.size += entry.size
        self.has_thin = self.has_thin or entry.path == _THIN

    def _link(self, parent: int, name: bytes, target: bytes) -> None:
        where, _, last = target.rpartition(b"/")
        directory = open_beneath(self._root, where, _DIRECTORY)
        try:
            os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _describe(self, parent: int, name: bytes, path: bytes, entry: LayerEntry) -> None:
        """Owner, mode, extended attributes and time; the order matters, since chown drops setuid bits."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind is not EntryKind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        if entry.xattrs:
            where = b"/proc/self/fd/%d/%b" % (parent, name)
            for key, value in entry.xattrs.items():
                try:
                    os.setxattr(where, escape_xattr(key), value, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _IGNORED_XATTR_ERRORS:
                        error.filename = path
                        raise
        time = entry.mtime * 1_000_000_000 + entry.mtime_ns
        if entry.kind is EntryKind.DIRECTORY:
            self._times[path] = time
        else:
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)


def _clear(parent: int, name: bytes) -> None:
    """Make room for an entry, whatever an earlier one of the layer put there."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except IsADirectoryError:
            directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                for child in os.listdir(directory):
                    _clear(directory, os.fsencode(child))
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=parent)
