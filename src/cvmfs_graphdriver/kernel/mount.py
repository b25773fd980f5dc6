"""Mounting: mount(2), umount2(2) and the newer calls that build a mount step by step.

Owns: the system calls of mount(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2) and open_tree(2), their
flags, and the messages for their failures. Must not know: what any file system's options mean.

A ``FilesystemContext`` takes options one by one, so they need not fit into the single page that mount(2)
passes, and errors carry the kernel's own explanation. It creates a mount that is not attached anywhere:
nobody can see it, and it disappears when its descriptor is closed.
"""

import contextlib
import ctypes
import errno
import os
from enum import IntFlag
from types import TracebackType
from typing import Self

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.syscalls import LIBC, system_call

__all__ = [
    "FilesystemContext",
    "MountAttribute",
    "MountFlag",
    "UmountFlag",
    "bind",
    "clone_tree",
    "mount",
    "move_mount",
    "umount",
]

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _SET_FD, _CMD_CREATE = 0, 1, 5, 6
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH = 1, 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_PAGE = 4096


Place = bytes | str | os.PathLike[str]
"""A path in any form that the standard library accepts."""


class MountFlag(IntFlag):
    """The ``mountflags`` of mount(2)."""

    NONE = 0
    READ_ONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    REMOUNT = 0x20
    BIND = 0x1000
    RECURSIVE = 0x4000
    PRIVATE = 0x40000
    SLAVE = 0x80000
    SHARED = 0x100000


class UmountFlag(IntFlag):
    """The flags of umount2(2). ``DETACH`` hides the mount at once and ends it when it is no longer used."""

    NONE = 0
    FORCE = 1
    DETACH = 2
    NOFOLLOW = 8


class MountAttribute(IntFlag):
    """The ``attr_flags`` of fsmount(2)."""

    NONE = 0
    READ_ONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8


def mount(
    source: Place | None,
    target: Place,
    filesystem: str | None,
    flags: MountFlag = MountFlag.NONE,
    data: bytes = b"",
) -> None:
    """Mount a file system or change a mount, as the system call of this name does.

    ``data`` are the file system's options, which must fit into one page. Raises MountError.
    """
    what = f"cannot mount {filesystem or _shown(source)} on {_shown(target)}"
    if len(data) >= _PAGE:
        raise MountError(f"{what}: {len(data)} bytes of options do not fit into one page", errno.E2BIG)
    result = LIBC.mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        data or None,
    )
    if result != 0:
        raise _failure(what, ctypes.get_errno())


def bind(source: Place, target: Place) -> None:
    """Show the directory or file ``source`` at ``target`` as well. Raises MountError."""
    mount(source, target, None, MountFlag.BIND)


def umount(target: Place, flags: UmountFlag = UmountFlag.NOFOLLOW) -> None:
    """Unmount what is mounted at ``target``. Raises MountError, with EBUSY while it is in use."""
    if LIBC.umount2(os.fsencode(target), int(flags)) != 0:
        raise _failure(f"cannot unmount {_shown(target)}", ctypes.get_errno())


def move_mount(descriptor: int, target: Place) -> None:
    """Attach the mount behind ``descriptor`` at ``target``. Raises MountError."""
    try:
        path = os.fsencode(target)
        system_call(_SYS_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, path, _MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        raise _failure(f"cannot attach a mount at {_shown(target)}", error.errno) from error


def clone_tree(path: Place, *, directory: int = _AT_FDCWD) -> int:
    """A detached copy of the mounts at and below ``path``; returns its descriptor. Raises MountError.

    ``directory`` is what a relative path starts from; an empty path is that directory itself.
    """
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC | _AT_EMPTY_PATH
    try:
        return system_call(_SYS_OPEN_TREE, directory, os.fsencode(path), flags)
    except OSError as error:
        raise _failure(f"cannot copy the mount at {_shown(path)}", error.errno) from error


class FilesystemContext:
    """A file system being set up: fsopen(2), options, then ``create``. Close it, or use ``with``."""

    def __init__(self, filesystem: str) -> None:
        """Raises MountError: ENODEV if the kernel has no such file system, ENOSYS if it has no fsopen."""
        self._filesystem = filesystem
        try:
            self._descriptor = system_call(_SYS_FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC)
        except OSError as error:
            raise _failure(f"cannot set up a file system of type {filesystem}", error.errno) from error
        os.set_blocking(self._descriptor, False)

    def set_flag(self, key: str) -> None:
        """Set an option without a value. Raises MountError."""
        self._configure(key, _SET_FLAG, None, 0)

    def set_string(self, key: str, value: bytes | str) -> None:
        """Set an option; the kernel accepts at most 255 bytes. Raises MountError."""
        self._configure(key, _SET_STRING, os.fsencode(value), 0)

    def set_descriptor(self, key: str, descriptor: int) -> None:
        """Set an option whose value is an open file or directory. Raises MountError."""
        self._configure(key, _SET_FD, None, descriptor)

    def create(self, attributes: MountAttribute = MountAttribute.NONE) -> int:
        """Create the file system and a detached mount of it; returns the mount's descriptor.

        Raises MountError, with what the kernel logged in this context.
        """
        try:
            system_call(_SYS_FSCONFIG, self._descriptor, _CMD_CREATE, None, None, 0)
            return system_call(_SYS_FSMOUNT, self._descriptor, _FSMOUNT_CLOEXEC, int(attributes))
        except OSError as error:
            raise self._explain("cannot mount", error) from error

    def close(self) -> None:
        """Close the context; what was created stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _configure(self, key: str, command: int, value: bytes | None, descriptor: int) -> None:
        try:
            system_call(_SYS_FSCONFIG, self._descriptor, command, key.encode(), value, descriptor)
        except OSError as error:
            shown = descriptor if value is None else _shown(value)
            raise self._explain(f"option {key}={shown} rejected by", error) from error

    def _explain(self, what: str, error: OSError) -> MountError:
        """An error with the kernel's lines in the context's log ("e something is wrong")."""
        lines = []
        with contextlib.suppress(OSError):
            while line := os.read(self._descriptor, 8192):
                lines.append(line.decode(errors="replace").strip()[2:])
        return _failure(f"{what} {self._filesystem}", error.errno, "; ".join(lines))


def _shown(path: Place | None) -> str:
    return "nothing" if path is None else os.fsdecode(path)


def _failure(what: str, error: int | None, details: str = "") -> MountError:
    number = error or 0
    hint = ": are you root?" if number == errno.EPERM else ""
    reason = f"{os.strerror(number)} ({details})" if details else os.strerror(number)
    return MountError(f"{what}: {reason}{hint}", number)
