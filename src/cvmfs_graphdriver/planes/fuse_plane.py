"""The FUSE plane: a repository is mounted whole, and its directories are overlay's lower layers.

Owns: which repositories are mounted below a directory, each by a keeper of its own, and finding out whether
one that is there still answers. Works on every kernel. Must not know: overlay mounts, Docker.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.kernel.overlay import OPAQUE_VALUE, OPAQUE_XATTR
from cvmfs_graphdriver.planes.errors import MountPointError, PlaneError
from cvmfs_graphdriver.planes.keeper import spawn
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from cvmfs_graphdriver.planes.request import MountRequest

__all__ = ["FusePlane"]


class FusePlane:
    """Implements ``Plane``. Repositories appear at ``<directory>/<fqrn>``."""

    name = "fuse"

    def __init__(self, directory: Path, etc: Path, overrides: Mapping[str, str]) -> None:
        self._directory = directory
        self._etc = etc
        self._overrides = dict(overrides)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def lower(self, layers: Sequence[LayerPath]) -> Iterator[Lower]:
        """The layers' directories; what an opaque root hides is left out."""
        found: list[Path | int] = []
        for layer in layers:
            directory = self.directory(layer)
            found.append(directory)
            if _is_opaque(directory):
                break
        yield Lower(found)

    def directory(self, layer: LayerPath) -> Path:
        """Mount the layer's repository if need be, and make sure that the layer is there."""
        root = self._mounted(layer.fqrn)
        directory = Path(os.fsdecode(os.fsencode(root) + layer.path))
        shown = f"cvmfs://{layer.fqrn}{os.fsdecode(layer.path)}"
        try:
            is_there = directory.is_dir() and not directory.is_symlink()
        except OSError as error:
            raise PlaneError(f"cannot read the layer {shown}: {error.strerror}") from error
        if not is_there:
            raise PlaneError(
                f"there is no layer {shown}: the image may be newer than the revision of {layer.fqrn} that "
                "this node has; try again in a few minutes, or ask who published it"
            )
        return directory

    def release(self, fqrn: str) -> None:
        """Unmount a repository; overlay mounts that were made of it go on working."""
        with self._lock_of(fqrn):
            if mount_at(self._directory / fqrn) is not None:
                umount(self._directory / fqrn, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def _mounted(self, fqrn: str) -> Path:
        target = self._directory / fqrn
        with self._lock_of(fqrn):
            if mount_at(target) is not None:
                if _answers(target):
                    return target
                umount(target, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
            try:
                target.mkdir(mode=0o755, parents=True, exist_ok=True)
            except OSError as error:
                raise MountPointError(f"cannot make the mount point {target}: {error.strerror}") from error
            request = MountRequest(
                fqrn, target, self._etc, overrides=self._overrides, whiteouts=True, suid=True
            )
            spawn(request)
        return target

    def _lock_of(self, fqrn: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(fqrn, threading.Lock())


def _answers(target: Path) -> bool:
    """Whether a mounted repository has a living server."""
    try:
        os.listxattr(target)
        os.statvfs(target)
    except OSError:
        return False
    return True


def _is_opaque(directory: Path) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == OPAQUE_VALUE
    except OSError:
        return False
