"""Opening files below a directory, with no way out of it: openat2(2) and what is built on it.

Owns: the system call, and the one set of flags that we use. Follows openat2(2) of the Linux manual pages
(Linux 5.6). Every path from outside (a tar stream, an image, a repository) is opened here: no ``..``,
absolute path, symbolic link or magic link in it can lead out of the directory, whatever other processes do
meanwhile.
"""

import ctypes
import errno
import os
import struct

from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.syscalls import system_call

__all__ = ["open_beneath"]

_SYS_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_open_how = struct.Struct("=QQQ")
_PATH_LIMIT = 4096
_ATTEMPTS = 128
"""With ``..`` in a path, the kernel answers EAGAIN while anything anywhere is being renamed."""


def open_beneath(directory: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path``, relative to the descriptor ``directory`` and below it; returns a descriptor.

    ``flags`` are those of os.open (O_CLOEXEC is added), ``mode`` the permissions of a created file. An empty
    path is the directory itself. Raises PathEscapeError: the path leads out of the directory or through a
    symbolic link, which includes the last component unless O_PATH and O_NOFOLLOW are both given; OSError: as
    os.open. The path may be longer than a single system call accepts.
    """
    if path.startswith(b"/"):
        raise PathEscapeError(f"the path {path!r} is absolute but must be relative", errno.EXDEV)
    if b"\0" in path:
        raise PathEscapeError(f"the path {path!r} contains a zero byte", errno.EINVAL)
    held = []
    try:
        while len(path) >= _PATH_LIMIT and (cut := path.rfind(b"/", 0, _PATH_LIMIT)) > 0:
            directory = _open(directory, path[:cut], os.O_PATH | os.O_DIRECTORY, 0)
            held.append(directory)
            path = path[cut:].lstrip(b"/")
        return _open(directory, path, flags, mode)
    finally:
        for descriptor in held:
            os.close(descriptor)


def _open(directory: int, path: bytes, flags: int, mode: int) -> int:
    """The same for a path that is short enough for the kernel."""
    creates = flags & (os.O_CREAT | os.O_TMPFILE)
    how = _open_how.pack(
        flags | os.O_CLOEXEC, mode if creates else 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS
    )
    buffer = ctypes.create_string_buffer(how, len(how))
    for _ in range(_ATTEMPTS):
        try:
            return system_call(_SYS_OPENAT2, directory, path or b".", buffer, _open_how.size)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise PathEscapeError(
                    f"{path!r} leads through a symbolic link or out of its directory", error.errno
                ) from error
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                error.filename = path
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
