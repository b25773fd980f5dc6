"""The FUSE plane: repositories are mounted whole, and their directories are overlay's lower layers.

Owns: which repositories are mounted below a directory, each by its own keeper, and checking that a mounted
one still answers. Works on every kernel. Must not know: overlay mounts, Docker.

A layer's path comes from an image, and what is at that path from a repository; neither may lead out of the
mounted repository. So layers are opened below its root, without following links, and passed on as
descriptors.
"""

import errno
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cvmfs_graphdriver.client.administration.talk_socket import ask
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import TalkError
from cvmfs_graphdriver.kernel.errors import PathEscapeError
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.kernel.openat2 import open_beneath
from cvmfs_graphdriver.kernel.overlay import OPAQUE_VALUE, OPAQUE_XATTR
from cvmfs_graphdriver.kernel.waiting.deadline import within
from cvmfs_graphdriver.planes.errors import (
    LayerNotFoundError,
    MountPointError,
    PlaneError,
    ServerError,
)
from cvmfs_graphdriver.planes.mounted import mounted_repositories
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from cvmfs_graphdriver.planes.report import cache_row, degraded_row, repository_row
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn

__all__ = ["FusePlane"]

_EMPTY = ".empty"
_PATIENCE_OF_CALLERS = 10.0
"""Seconds that a repository's server may take to answer the kernel before it is replaced."""
_PAUSE = 3.0
"""Seconds between two searches for a new revision, since images may name layers that never exist."""
_FQRN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class FusePlane:
    """Implements ``Plane``. Repositories appear at ``<directory>/<fqrn>``.

    With ``triggers`` they have the fetch trigger of the EROFS plane; ``why`` is the reason for using this
    plane.
    """

    name = "fuse"

    def __init__(
        self,
        directory: Path,
        etc: Path,
        overrides: Mapping[str, str],
        *,
        triggers: bool = False,
        why: str = "",
    ) -> None:
        self.why = why
        self._triggers = triggers
        self._directory = directory
        self._etc = etc
        self._overrides = dict(overrides)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._searches: dict[str, float] = {}
        """When each repository was last asked for a new revision."""
        self._failures: dict[str, tuple[float, ServerError]] = {}
        """When each repository could not be mounted last, and why."""

    @contextmanager
    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> Iterator[Lower]:
        """The layers' directories, without those that an opaque root hides."""
        del bottom  # whiteouts are always shown
        with ExitStack() as held:
            found: list[Path | int] = []
            checked: set[str] = set()
            for layer in layers:
                descriptor = self._open(layer, checked)
                held.callback(os.close, descriptor)
                found.append(descriptor)
                if _is_opaque(descriptor):
                    break
            if len(found) == 1:
                found.append(self._place(_EMPTY))  # overlayfs needs at least two lower layers
            yield Lower(found)

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        """Nothing is made of layers here."""

    def repository(self, layer: LayerPath) -> Path:
        """Mount the layer's repository if necessary, and make sure that the layer exists."""
        os.close(self.open(layer))
        return self._directory / layer.fqrn

    def release(self, fqrn: str) -> None:
        """Unmount a repository; overlay mounts that use it keep working."""
        with self._lock_of(fqrn):
            if mount_at(self._directory / fqrn) is not None:
                umount(self._directory / fqrn, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def answers(self, fqrn: str) -> bool:
        """Whether a repository is mounted and has a running server."""
        return mount_at(self._directory / fqrn) is not None and _answers(self._directory / fqrn)

    def status(self, problems: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Each mounted repository, their shared cache, and what is degraded."""
        statuses, broken = mounted_repositories(self._directory, self.settings)
        rows = [repository_row(status) for status in statuses]
        cache = self._overrides.get("CVMFS_CACHE_BASE")
        if cache:
            rows.append(cache_row(cache, self._overrides.get("CVMFS_QUOTA_LIMIT", ""), statuses))
        return [*rows, degraded_row(statuses, broken, problems)]

    def settings(self, fqrn: str) -> RepositorySettings:
        """How a repository is configured. Raises ConfigurationError."""
        return load_settings(fqrn, self._etc, self._overrides)

    def open(self, layer: LayerPath) -> int:
        """A descriptor of the layer's directory, in the mounted revision or a newer one."""
        shown = f"cvmfs://{layer.fqrn}{os.fsdecode(layer.path)}"
        try:
            with suppress(FileNotFoundError):
                return _open_below(self.mount_point(layer.fqrn), layer.path)
            self._look_for_newer(layer.fqrn, time.monotonic())
            return _open_below(self.mount_point(layer.fqrn), layer.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LayerNotFoundError(
                f"there is no layer {shown}: if it was published just now, try again in a few minutes, "
                "otherwise ask the publisher of the image"
            ) from error
        except PathEscapeError as error:
            raise LayerNotFoundError(f"there is no layer {shown}: it is not a plain directory") from error
        except OSError as error:
            raise PlaneError(f"cannot read the layer {shown}: {error.strerror}") from error

    def _open(self, layer: LayerPath, checked: set[str]) -> int:
        """The same, but a repository in ``checked`` is not asked again whether it answers."""
        if layer.fqrn in checked:
            with suppress(OSError, PathEscapeError):  # ``open`` says what is wrong
                return _open_below(self._directory / layer.fqrn, layer.path)
        descriptor = self.open(layer)
        checked.add(layer.fqrn)
        return descriptor

    def _look_for_newer(self, fqrn: str, since: float) -> None:
        """Ask the repository's server, if it answers, to look for a new revision, unless it has ``since``.

        An HTTP cache may not know for many minutes that there is one, so it is not believed.
        """
        with self._lock_of(f"{fqrn}/search"):
            last = self._searches.get(fqrn, -_PAUSE)
            if last >= since:
                return
            time.sleep(max(0.0, last + _PAUSE - time.monotonic()))
            self._searches[fqrn] = time.monotonic()
            with suppress(TalkError):
                ask(self.settings(fqrn).talk_socket, "remount past caches")

    def mount_point(self, fqrn: str) -> Path:
        """The mount point of a repository, which is mounted now unless it is mounted and answers.

        If mounting fails, those who have waited for it do not try once more, one after the other.
        """
        if not _FQRN.fullmatch(fqrn):
            raise MountPointError(f"{fqrn!r} is not a valid name of a repository")
        asked = time.monotonic()
        with self._lock_of(fqrn):
            failed, error = self._failures.get(fqrn, (0.0, None))
            if error is not None and failed > asked:
                raise ServerError(str(error), error.reason_code)
            target = self._place(fqrn)
            if mount_at(target) is not None:
                if _answers(target):
                    return target
                umount(target, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
            self._mount(fqrn, target)
        return target

    def _mount(self, fqrn: str, target: Path) -> None:
        request = MountRequest(
            fqrn,
            target,
            self._etc,
            overrides=self._overrides,
            whiteouts=True,
            triggers=self._triggers,
            suid=True,
        )
        try:
            spawn(request)
        except ServerError as error:
            self._failures[fqrn] = time.monotonic(), error
            raise

    def _place(self, name: str) -> Path:
        """A directory below ours, created if necessary. What is mounted there may be dead."""
        place = self._directory / name
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                place.mkdir(mode=0o755)
        except OSError as error:
            raise MountPointError(f"cannot create the directory {place}: {error.strerror}") from error
        return place

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())


def _open_below(root: Path, path: bytes) -> int:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(top, path.lstrip(b"/"), os.O_PATH | os.O_DIRECTORY)
    finally:
        os.close(top)


def _answers(target: Path) -> bool:
    """Whether a mounted repository has a running server that answers in time."""
    try:
        within(_PATIENCE_OF_CALLERS, lambda: os.statvfs(target))
    except OSError:
        return False
    return True


def _is_opaque(descriptor: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", OPAQUE_XATTR) == OPAQUE_VALUE
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise
