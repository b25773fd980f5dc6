"""``/dev/fuse`` and its mount.

Owns: opening the device, the mount options of FUSE (Documentation/filesystems/fuse.rst), the kernel's
read-ahead for the mount. Must not know: who serves it. A mount lives as long as its descriptor is open in
some process.
"""

import contextlib
import os
from pathlib import Path

from cvmfs_graphdriver.kernel.errors import FuseError
from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.kernel.mount import MountFlag, Place, mount
from cvmfs_graphdriver.kernel.mountinfo import mount_at

__all__ = ["mount_device", "offer_content", "open_device", "set_readahead"]

_DEVICE = "/dev/fuse"


def open_device() -> int:
    """A descriptor for one file system, to be mounted. Raises FuseError."""
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FuseError(
            f"cannot open {_DEVICE}: {error.strerror}; is the kernel's FUSE module loaded?", error.errno or 0
        ) from error


def mount_device(
    device: int,
    target: Place,
    *,
    source: str,
    subtype: str,
    flags: MountFlag = MountFlag.READ_ONLY | MountFlag.NODEV,
    allow_other: bool = True,
    default_permissions: bool = True,
) -> None:
    """Mount the file system that is served through ``device``.

    ``source`` and ``subtype`` are what the mount table shows (``SOURCE on … type fuse.SUBTYPE``). Raises
    MountError. The kernel sends no request until the mount is used.
    """
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,max_read={wire.MAX_READ}"
    options += ",allow_other" if allow_other else ""
    options += ",default_permissions" if default_permissions else ""
    mount(source, target, f"fuse.{subtype}", flags, options.encode())


def set_readahead(target: Place, size: int) -> bool:
    """Let the kernel read ``size`` bytes ahead on this mount; says whether it could be set.

    FUSE starts with 128 KiB, and the protocol can only lower that. This needs root and a writable ``/sys``,
    and works only after the server has answered the first request.
    """
    found = mount_at(target)
    if found is None:
        return False
    major, minor = found.device
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").write_text(f"{size // 1024}\n")
        return True
    return False


def offer_content(device: int, node: int, content: bytes) -> bool:
    """Give the kernel a whole file for its page cache without being asked; says whether it was accepted.

    The kernel refuses nodes that it does not know. May wait until a READ of the same file is answered.
    """
    try:
        os.writev(device, [wire.store_header(node, 0, len(content)), content])
    except OSError:
        return False
    return True
