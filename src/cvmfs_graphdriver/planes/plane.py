"""What a plane is: the lower part of an overlay mount for a chain of layers that lie in repositories.

Owns: the interface that graph driver and snapshotter use, and its vocabulary. Must not know: how a plane
gives layers to the kernel.

Use: name the layers of an image, topmost first, and mount what comes out below a directory for writing::

    with plane.lower(layers) as lower:
        mount_overlay(lower.layers, merged, upper=…, work=…, data=lower.data, options=lower.options)

A layer is a directory of a repository that holds a layer's tree with whiteouts as its tar stream had them
(``.wh.x``); what a plane gives out has them in overlayfs' form. Whole layers below one whose root directory
is opaque are left out: overlayfs does not look for that mark there.
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

    An integer is the descriptor of a directory, good until the context that gave it ends.
    """

    layers: Sequence[Path | int]
    data: Sequence[Path | int] = ()
    options: Mapping[str, str | None] = field(default_factory=dict)


class Plane(Protocol):
    """A way of giving layers to the kernel; safe for any number of threads."""

    @property
    def name(self) -> str:
        """``fuse`` or ``erofs``."""
        ...

    @property
    def why(self) -> str:
        """Why it is this plane and not the other one."""
        ...

    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> AbstractContextManager[Lower]:
        """The lower part for these layers, topmost first; mounts the repositories that they need.

        ``bottom`` says that nothing lies below them.
        Raises PlaneError: a repository cannot be mounted, or has no such directory; KernelError.
        """
        ...

    def directory(self, layer: LayerPath) -> Path:
        """The layer's own tree, whiteouts in overlayfs' form, for whoever computes differences.

        Raises as ``lower`` does.
        """
        ...

    def release(self, fqrn: str) -> None:
        """Unmount a repository that no layer is taken from any more. What is mounted goes on working."""
        ...

    def answers(self, fqrn: str) -> bool:
        """Whether a repository is mounted and served. If not, no layer that needs it can be whole."""
        ...

    def status(self) -> Sequence[tuple[str, str]]:
        """What an administrator should see: a name and a value each, from what is known without asking
        the network.
        """
        ...
