"""Which plane to use: the EROFS plane if everything that it needs works here, otherwise the FUSE plane.

Owns: that decision, and how it is reported. Whether the kernel can do it is tried once, with an image of one
file: a version number says little about distributions' kernels, or about what a container is allowed to do.
Must not know: Docker.
"""

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.erofs import Directory, Inode, write_image
from cvmfs_graphdriver.kernel.mount import MountAttribute, UmountFlag, umount
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.planes.erofs_plane import ErofsPlane, mount_image
from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import Plane

__all__ = ["Choice", "choose_plane", "obstacle"]

_log = logging.getLogger(__name__)

_CONTENT = b"this is the data"
_DEFAULTS = ("metacopy", "redirect_dir", "index")
_PARAMETERS = Path("/sys/module/overlay/parameters")
_SELINUX = Path("/sys/fs/selinux/enforce")


class Choice(StrEnum):
    """The values of ``DATA_PLANE``."""

    AUTO = "auto"
    FUSE = "fuse"
    EROFS = "erofs"


def choose_plane(
    choice: Choice, home: Path, etc: Path, overrides: Mapping[str, str], *, stacked: bool = False
) -> Plane:
    """The plane for a driver whose files lie below ``home``.

    ``stacked``: others mount overlays upon an overlay of what the plane provides. Raises PlaneError: the
    EROFS plane is required but cannot be used.
    """
    mounts = home / "cvmfs"
    if choice is Choice.FUSE:
        return FusePlane(mounts, etc, overrides, why="required by DATA_PLANE")
    reason = obstacle(home, stacked=stacked)
    if reason:
        if choice is Choice.EROFS:
            raise PlaneError(f"DATA_PLANE requires the EROFS plane, which cannot be used here: {reason}")
        _log.info("using the FUSE plane: %s", reason)
        return FusePlane(mounts, etc, overrides, why=f"erofs not possible: {reason}")
    why = "required by DATA_PLANE" if choice is Choice.EROFS else f"supported by Linux {os.uname().release}"
    fuse = FusePlane(mounts, etc, overrides, triggers=True)
    try:
        return ErofsPlane(fuse, mounts / ".images", why)
    except OSError as error:
        raise PlaneError(f"cannot keep images in {home}: {error.strerror}") from error


def obstacle(home: Path, *, stacked: bool = False) -> str:
    """Why the EROFS plane cannot be used with files below ``home``; empty if it can.

    ``stacked`` as with ``choose_plane``: not every kernel counts the layers of file systems alike.
    """
    if os.geteuid() != 0:
        return "it needs root"
    if _SELINUX.exists():
        return "it does not support SELinux labels"
    for name in _DEFAULTS:
        with suppress(FileNotFoundError):
            if (_PARAMETERS / name).read_text(encoding="ascii").strip().upper() not in ("N", "OFF"):
                return f"overlay's {name} is on by default"
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=".new-"))
    try:
        return _try(scratch, stacked=stacked)
    except (CvmfsGraphdriverError, OSError) as error:
        return str(error)
    finally:
        for name in ("merged", "inner"):
            with suppress(CvmfsGraphdriverError):
                umount(scratch / name, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
        shutil.rmtree(scratch, ignore_errors=True)


def _try(scratch: Path, *, stacked: bool) -> str:
    """Mount an image of one file whose data is in the second of two data-only layers, and use it."""
    for name in ("first", "second", "upper", "work", "merged", "inner"):
        (scratch / name).mkdir()
    (scratch / "second/data").write_bytes(_CONTENT)
    file = Inode(stat.S_IFREG | 0o640, size=len(_CONTENT), redirect=b"/data")
    with (scratch / "image").open("w+b") as image:
        image.write(write_image(Directory(children={b"file": file})))
        image.flush()
        mounted = mount_image(image.fileno())
    merged, inner = scratch / "merged", scratch / "inner"
    upper, work = scratch / "upper", scratch / "work"
    data = [scratch / "first", scratch / "second"]
    try:
        if stacked:
            mount_overlay([mounted], inner, data=data, attributes=MountAttribute.READ_ONLY)
            mount_overlay([inner], merged, upper=upper, work=work)
        else:
            mount_overlay([mounted], merged, upper=upper, work=work, data=data)
    finally:
        os.close(mounted)
    if (merged / "file").read_bytes() != _CONTENT:
        return "this kernel does not follow an image's files to their data"
    (merged / "file").chmod(0o600)
    if (scratch / "upper/file").read_bytes() != _CONTENT:
        return "this kernel does not copy an image's files up with their data"
    return ""
