"""The mounts that we tell containerd to make.

Owns: their form. Containerd, dockerd and BuildKit change and take apart what they are told, so it is what
containerd's own overlayfs snapshotter says: one option ``lowerdir=`` with all lower directories (others are
lost where an active mount is made read-only for a diff), and a bind mount where there is nothing to merge.
Must not know: where directories come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.kernel.overlay import LAYER_LIMIT, plain_options
from cvmfs_graphdriver.snapshotter.errors import SnapshotStateError

__all__ = ["MountOption", "bind_mount", "overlay_mount"]

_ROOM: Final = 4096 - 512
"""Bytes of options from which on containerd mounts from within the directory common to all lower ones."""


@dataclass(frozen=True, slots=True)
class MountOption:
    """A mount, as in containerd's protocol; the client knows where to mount it."""

    type: str
    source: str
    options: Sequence[str]


def bind_mount(directory: Path, *, writable: bool, extra: Sequence[str] = ()) -> MountOption:
    """Show one directory."""
    return MountOption("bind", str(directory), (*extra, "rw" if writable else "ro", "rbind"))


def overlay_mount(
    lower: Sequence[Path],
    shorten: Callable[[Path], Path],
    *,
    upper: Path | None = None,
    work: Path | None = None,
    extra: Sequence[str] = (),
) -> MountOption:
    """Merge directories, topmost first; read-only without ``upper`` and ``work``.

    If the options are long, ``shorten`` gives each lower directory a short name in one common directory.
    Raises SnapshotStateError: there are too many.
    """
    if len(lower) > LAYER_LIMIT:
        raise SnapshotStateError(
            f"{len(lower)} layers are more than the {LAYER_LIMIT} that overlayfs can stack; squash the image"
        )
    options = [f"{key}={value}" for key, value in plain_options().items()]
    if upper is not None and work is not None:
        options += [f"workdir={work}", f"upperdir={upper}"]
    options += extra
    names = ":".join(map(str, lower))
    if len(",".join(options)) + len(",lowerdir=") + len(names.encode()) >= _ROOM:
        names = ":".join(str(shorten(each)) for each in lower)
    return MountOption("overlay", "overlay", (*options, f"lowerdir={names}"))
