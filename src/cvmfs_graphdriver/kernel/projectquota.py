"""Project quotas: limits for the contents of directories instead of for users.

Owns: the calls that assign a directory to a project and limit a project (ioctl_xfs_fsgetxattr(2),
ioctl_xfs_fssetxattr(2), quotactl_fd of Linux 5.14 with ``Q_XSETQLIM`` of quotactl(2)). The layouts are those
of <linux/fs.h> and <linux/dqblk_xfs.h>. Must not know: what is limited.
"""

import ctypes
import fcntl
import struct

from cvmfs_graphdriver.kernel.syscalls import system_call

__all__ = ["limit_project", "project_of", "put_into_project"]

_SYS_QUOTACTL_FD = 443
_GET, _SET = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_attributes = struct.Struct("=IIIII8x")
_SET_LIMIT, _PROJECT = 0x5804, 2
_VERSION, _OF_PROJECT = 1, 2
_BLOCK_SOFT, _BLOCK_HARD = 1 << 2, 1 << 3
_BLOCK = 512
_limits = struct.Struct("=bbHIQQ88x")


def project_of(directory: int) -> int:
    """The project that an open file or directory belongs to; 0 for none. Raises OSError."""
    return int(_read(directory)[3])


def put_into_project(directory: int, project: int) -> None:
    """Assign an open directory, and what will be created in it, to a project. Raises OSError."""
    flags, extent, extents, _, copied = _read(directory)
    fcntl.ioctl(directory, _SET, _attributes.pack(flags | _INHERIT, extent, extents, project, copied))


def limit_project(filesystem: int, project: int, size: int) -> None:
    """Limit a project to ``size`` bytes on the file system of an open file; 0 for no limit.

    Raises OSError: the file system does not support project quotas, or they are not enabled.
    """
    blocks = -(-size // _BLOCK)
    limits = ctypes.create_string_buffer(
        _limits.pack(_VERSION, _OF_PROJECT, _BLOCK_SOFT | _BLOCK_HARD, project, blocks, blocks), _limits.size
    )
    system_call(_SYS_QUOTACTL_FD, filesystem, _SET_LIMIT << 8 | _PROJECT, project, limits)


def _read(directory: int) -> tuple[int, ...]:
    return _attributes.unpack(fcntl.ioctl(directory, _GET, bytes(_attributes.size)))
