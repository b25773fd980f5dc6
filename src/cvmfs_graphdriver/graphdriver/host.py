"""The host's requirements: the checks that Docker makes for overlay2, and what ``docker info`` shows.

Owns: file system names, d_type. Must not know: layers.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cvmfs_graphdriver.graphdriver.errors import UnsupportedHostError
from cvmfs_graphdriver.kernel.mountinfo import mount_of
from cvmfs_graphdriver.kernel.overlay import takes_upper
from cvmfs_graphdriver.kernel.release import kernel_version

__all__ = ["Backing", "check_host"]

_LEAST_KERNEL = (4, 0)
_NAMES = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs"}


@dataclass(frozen=True, slots=True)
class Backing:
    """The file system that holds the layers."""

    name: str
    d_type: bool


def check_host(home: Path, *, override_kernel_check: bool) -> Backing:
    """Check that overlayfs can work below ``home``. Raises UnsupportedHostError with the reason."""
    if kernel_version() < _LEAST_KERNEL and not override_kernel_check:
        raise UnsupportedHostError(
            f"Linux {os.uname().release} is too old for overlay mounts of several layers; "
            "storage-opt overlay2.override_kernel_check=true skips this check"
        )
    name = mount_of(home).filesystem.decode()
    if not takes_upper(name):
        raise UnsupportedHostError(
            f"{home} is on {name}, which overlayfs cannot write to: move Docker's data root to ext4 or xfs"
        )
    backing = Backing(_NAMES.get(name, name), _has_d_type(home))
    if not backing.d_type:
        raise UnsupportedHostError(
            f"{home} is on a {name} file system without d_type, on which overlayfs shows deleted files: "
            "recreate the file system with d_type (xfs: mkfs.xfs -n ftype=1)"
        )
    return backing


def _has_d_type(directory: Path) -> bool:
    """Whether a directory listing includes the types of the entries."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as scratch:
        os.mkdir(f"{scratch}/probe")
        with os.scandir(scratch) as entries:
            # is_dir() without a stat call is possible only when the listing carries the type.
            return all(entry.is_dir(follow_symlinks=False) for entry in entries)
