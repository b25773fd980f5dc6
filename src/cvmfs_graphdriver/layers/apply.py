"""Unpacking a layer's tar stream into the layer's directory.

Owns: what each entry becomes on disk. The rules are those of Docker's overlay2 driver: whiteouts get
overlayfs' form, later entries replace earlier ones, directories get their times last, and the root directory
keeps its attributes. A whiteout applies to lower layers only (OCI image specification): an entry of
the same layer under that name remains, and hides everything below it. The stream is untrusted: entries are
created only through descriptors of directories inside the layer, no link is followed, and attributes that
overlayfs would interpret are escaped. Must not know: where the stream comes from.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.kernel.overlay import (
    LAYER_LIMIT,
    OPAQUE_MARK,
    OPAQUE_VALUE,
    OPAQUE_XATTR,
    ORIGIN_XATTR,
    WHITEOUT_DEVICE,
    WHITEOUT_MODE,
    escape_xattr,
    hidden_by,
    is_mark,
    is_whiteout,
)
from cvmfs_graphdriver.layers.directories import Directories, Part
from cvmfs_graphdriver.layers.errors import ApplyError
from cvmfs_graphdriver.layers.idmap import Owners
from cvmfs_graphdriver.layers.remove import remove_directory
from cvmfs_graphdriver.layers.times import DirectoryTimes
from cvmfs_graphdriver.oci.errors import OciError
from cvmfs_graphdriver.oci.image.thin import THIN_LIMIT, ThinImage
from cvmfs_graphdriver.oci.layer.entry import EntryKind, LayerEntry
from cvmfs_graphdriver.oci.layer.tar import TarReader
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["apply_layer"]

_THIN = b"/thin.json"
_READ = 1 << 20
_LONGEST_PATH = 65_535
"""Containers create trees deeper than PATH_MAX. There is a limit since the cost of each level grows."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_SPECIAL = {
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
_IGNORED_XATTR_ERRORS = (errno.ENOTSUP, errno.EPERM)  # as Docker does: the file system does not support it


def apply_layer(source: ByteSource, diff: Path, owners: Owners) -> tuple[int, ThinImage | None]:
    """Unpack the tar stream ``source`` into the empty directory ``diff``.

    Returns the number of bytes in its files, and its descriptor if it is a thin layer. Raises ApplyError: the
    stream is damaged or hostile, or the disk is full; UnmappedOwnerError. The directory is then unusable.
    """
    root = os.open(diff, _DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(_Unpacking(root, owners)) as unpacking:
            tar = TarReader("the layer", source, longest=_LONGEST_PATH)
            only = True
            for entry in tar:
                only = only and entry.path in (b"", _THIN)
                if only and entry.size > THIN_LIMIT:
                    raise ApplyError(
                        f"the layer is refused: its thin.json has {entry.size} bytes, more than {THIN_LIMIT}"
                    )
                unpacking.write(entry, tar.read)
            unpacking.finish()
        if only and unpacking.has_thin:
            with open(open_beneath(root, _THIN[1:], os.O_RDONLY), "rb") as file:
                return unpacking.size, _stackable(ThinImage.read(file))
        return unpacking.size, None  # noqa: TRY300
    except OciError as error:
        raise ApplyError(f"the layer is refused: {error}") from error
    except PathEscapeError as error:
        raise ApplyError(f"the layer is refused: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApplyError(f"no space left in {diff} for the layer") from error
        name = os.fsdecode(error.filename) if error.filename else str(diff)
        raise ApplyError(f"cannot unpack {name} from the layer: {error.strerror}") from error
    finally:
        os.close(root)


class _Unpacking:
    """Unpacking one layer into one directory."""

    def __init__(self, root: int, owners: Owners) -> None:
        self._root = root
        self._owners = owners
        self._times = DirectoryTimes()
        self._parent: tuple[bytes, int] | None = None
        self.size = 0
        self.has_thin = False

    def write(self, entry: LayerEntry, read: Callable[[int], bytes]) -> None:
        """Create one entry."""
        path = entry.path[1:]
        if not path:
            return
        if entry.path == _THIN:
            self.has_thin = entry.kind is EntryKind.FILE
        where, _, name = path.rpartition(b"/")
        parent = self._open_parent(where)
        if is_mark(name):
            self._mark(parent, name)
        elif entry.kind is EntryKind.DIRECTORY:
            self._directory(parent, name, path)
            self._describe(parent, name, path, entry)
        else:
            try:
                self._make(parent, name, path, entry, read)
            except FileExistsError:
                self._replace(parent, name, path)
                self._make(parent, name, path, entry, read)

    def close(self) -> None:
        """Close the directory that is open."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def finish(self) -> None:
        """Set the times of directories, once no further entry can change them."""
        with Directories() as opened:
            for path, time in self._times:
                os.utime(opened.open(Part(b"/proc/self/fd/%d" % self._root, path)), ns=(time, time))

    def _open_parent(self, path: bytes) -> int:
        """The parent of an entry, kept open since entries of one directory usually follow each other."""
        if self._parent is None or self._parent[0] != path:
            descriptor = self._open_below(path) or self._open_directory(path)
            self.close()
            self._parent = path, descriptor
        return self._parent[1]

    def _open_below(self, path: bytes) -> int | None:
        """The same if its parent is open, which saves walking a deep tree from its root."""
        where, _, name = path.rpartition(b"/")
        if self._parent is None or self._parent[0] != where or not name:
            return None
        with suppress(FileNotFoundError):
            return open_beneath(self._parent[1], name, _DIRECTORY)
        return None

    def _open_directory(self, path: bytes) -> int:
        """A directory of the layer; missing ones are created as Docker does."""
        with suppress(FileNotFoundError):
            return open_beneath(self._root, path, _DIRECTORY)
        directory = open_beneath(self._root, b"", _DIRECTORY)
        for name in path.split(b"/"):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=directory)
                below = open_beneath(directory, name, _DIRECTORY)
            finally:
                os.close(directory)
            directory = below
        return directory

    def _mark(self, parent: int, name: bytes) -> None:
        if name == OPAQUE_MARK:
            os.setxattr(parent, OPAQUE_XATTR, OPAQUE_VALUE)
            return
        hidden = hidden_by(name)
        if hidden is None:
            return
        try:
            os.mknod(hidden, WHITEOUT_MODE, WHITEOUT_DEVICE, dir_fd=parent)
            os.setxattr(parent, ORIGIN_XATTR, b"")
        except FileExistsError:
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                _make_opaque(parent, hidden)

    def _directory(self, parent: int, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            self._replace(parent, name, path)
            os.mkdir(name, 0o755, dir_fd=parent)
            if is_whiteout(status.st_mode, status.st_rdev):
                _make_opaque(parent, name)

    def _make(
        self, parent: int, name: bytes, path: bytes, entry: LayerEntry, read: Callable[[int], bytes]
    ) -> None:
        """Create anything but a directory. Raises FileExistsError before reading any content."""
        kind = entry.kind
        if kind is EntryKind.FILE:
            self._file(parent, name, path, entry, read)
        elif kind is EntryKind.HARD_LINK:
            self._link(parent, name, entry.linkname[1:])
            self._describe(parent, name, path, entry)  # as Docker does: the last entry counts for all names
        else:
            if kind is EntryKind.SYMLINK:
                os.symlink(entry.linkname, name, dir_fd=parent)
                self.size += len(entry.linkname)
            else:
                os.mknod(name, _SPECIAL[kind] | 0o600, entry.device, dir_fd=parent)
            self._describe(parent, name, path, entry)

    def _file(
        self, parent: int, name: bytes, path: bytes, entry: LayerEntry, read: Callable[[int], bytes]
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            while data := read(_READ):
                view = memoryview(data)
                while view:
                    view = view[os.write(file, view) :]
            os.fchown(file, *self._owner(entry))
            os.fchmod(file, entry.mode)
            _set_xattrs(file, path, entry)
            time = _time(entry)
            os.utime(file, ns=(time, time))
        finally:
            os.close(file)
        self.size += entry.size

    def _link(self, parent: int, name: bytes, target: bytes) -> None:
        where, _, last = target.rpartition(b"/")
        directory = open_beneath(self._root, where, _DIRECTORY)
        try:
            os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _describe(self, parent: int, name: bytes, path: bytes, entry: LayerEntry) -> None:
        """Set owner, mode, extended attributes and time; the order matters, since chown drops setuid bits."""
        os.chown(name, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        is_link = entry.kind is EntryKind.HARD_LINK
        is_symlink = entry.kind is EntryKind.SYMLINK or (is_link and _is_symlink(parent, name))
        if not is_symlink:
            os.chmod(name, entry.mode, dir_fd=parent)
        _set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), path, entry)
        if entry.kind is EntryKind.DIRECTORY:
            self._times.put(path, _time(entry))
        elif not (is_link and is_symlink):
            os.utime(name, ns=(_time(entry), _time(entry)), dir_fd=parent, follow_symlinks=False)

    def _owner(self, entry: LayerEntry) -> tuple[int, int]:
        return self._owners.users.outward(entry.uid), self._owners.groups.outward(entry.gid)

    def _replace(self, parent: int, name: bytes, path: bytes) -> None:
        """Remove what an earlier entry of the layer created at this path."""
        was_directory, size = _clear(parent, name)
        self.size -= size
        if was_directory:
            self._times.forget(path)


def _stackable(thin: ThinImage) -> ThinImage:
    if len(thin.layers) > LAYER_LIMIT:
        raise ApplyError(
            f"the layer is refused: its thin.json has {len(thin.layers)} layers, more than the {LAYER_LIMIT} "
            "that overlayfs can stack"
        )
    return thin


def _is_symlink(parent: int, name: bytes) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _time(entry: LayerEntry) -> int:
    return entry.mtime * 1_000_000_000 + entry.mtime_ns


def _set_xattrs(where: bytes | int, path: bytes, entry: LayerEntry) -> None:
    for key, value in entry.xattrs.items():
        try:
            # The path goes through a descriptor to what has just been created: no component is a link.
            if isinstance(where, int):
                os.setxattr(where, escape_xattr(key), value)
            else:
                os.setxattr(where, escape_xattr(key), value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _IGNORED_XATTR_ERRORS:
                error.filename = path
                raise


def _make_opaque(parent: int, name: bytes) -> None:
    directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.setxattr(directory, OPAQUE_XATTR, OPAQUE_VALUE)
    finally:
        os.close(directory)


def _clear(parent: int, name: bytes) -> tuple[bool, int]:
    """Remove what has this name; returns whether it was a directory, and the bytes of files removed."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return False, status.st_size if status.st_nlink == 1 else 0
    problems: list[OSError] = []
    size = remove_directory(parent, name, problems.append)
    if problems:
        raise problems[0]
    return True, size
