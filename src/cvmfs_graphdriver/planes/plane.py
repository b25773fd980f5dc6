"""The interface of a plane: it provides the lower part of an overlay mount for layers in repositories.

Owns: the interface that the graph driver uses, and its vocabulary. Must not know: how a plane presents layers
to the kernel.

Use: name the layers of an image, topmost first, and mount the result below a writable directory::

    with plane.lower(layers) as lower:
        mount_overlay(lower.layers, merged, upper=…, work=…, data=lower.data, options=lower.options)

A layer is a directory of a repository that holds a layer's tree with the whiteouts of its tar stream
(``.wh.x``); a plane provides them in the form of overlayfs. Layers below one whose root directory is opaque
are left out, because overlayfs does not look for that mark there.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["LayerPath", "Lower", "Plane"]


@dataclass(frozen=True, slots=True)
class LayerPath:
    """A layer: the absolute path ``path`` in the repository ``fqrn``."""

    fqrn: str
    path: bytes


@dataclass(frozen=True, slots=True)
class Lower:
    """Arguments for ``kernel.overlay.mount_overlay``: layers topmost first, data-only layers, options.

    An integer is the descriptor of a directory, valid until the context that provided it ends.
    """

    layers: Sequence[Path | int]
    data: Sequence[Path | int] = ()
    options: Mapping[str, str | None] = field(default_factory=dict)


class Plane(Protocol):
    """A way of presenting layers to the kernel; safe for any number of threads."""

    @property
    def name(self) -> str:
        """``fuse`` or ``erofs``."""
        ...

    @property
    def why(self) -> str:
        """The reason for using this plane."""
        ...

    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> AbstractContextManager[Lower]:
        """The lower part for these layers, topmost first; mounts the repositories that they need.

        ``bottom`` says that there are no other layers below them. Raises PlaneError: a repository cannot be
        mounted, or has no such directory; KernelError.
        """
        ...

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        """Make what ``lower`` will need for these layers, with nothing below them; nothing is mounted.

        Raises as ``lower`` does.
        """
        ...

    def repository(self, layer: LayerPath) -> Path:
        """The mount point of the repository, which has the layer, with whiteouts in the form of overlayfs.

        Open the layer beneath it without following links: another revision may be shown by then. Raises as
        ``lower`` does.
        """
        ...

    def release(self, fqrn: str) -> None:
        """Unmount a repository whose layers are no longer needed. Existing overlay mounts keep working."""
        ...

    def answers(self, fqrn: str) -> bool:
        """Whether a repository is mounted and served. If not, layers that need it are incomplete."""
        ...

    def status(self, problems: Sequence[str] = ()) -> Sequence[tuple[str, str]]:
        """Names and values to show to administrators, without asking the network.

        ``problems`` are those of the caller, to be shown with the plane's own.
        """
        ...
