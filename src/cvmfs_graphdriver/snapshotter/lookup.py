"""Whether a layer that containerd wants is in one of the repositories.

Owns: in which order repositories and keys are tried, how long that may take, and why a layer is not lazy. A
repository that cannot be asked is not asked again for a while, so that pulling an image with many layers is
not held up; whatever happens here, the worst is a normal pull. Must not know: snapshots, mounts.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.deadline import within
from cvmfs_graphdriver.layers.chain_index import ChainIndex, Miss
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.planes.plane import LayerPath, Plane
from cvmfs_graphdriver.snapshotter.snapshot import LazySource

__all__ = ["LayerLookup", "NotLazy", "RepositoryLookup", "WantedLayer"]

_log = logging.getLogger(__name__)

_PAUSE: Final = 60.0
"""Seconds for which a repository that could not be asked is not asked again."""


@dataclass(frozen=True, slots=True)
class WantedLayer:
    """A layer by the keys that containerd gave: its chain, the chain below, and the digest of its blob.

    ``below`` is None for a base layer. If the chain below is not known, ``chain`` is None: nothing that is
    found by it could be checked.
    """

    chain: ContentDigest | None
    below: ContentDigest | None
    layer: ContentDigest | None


@dataclass(frozen=True, slots=True)
class NotLazy:
    """A layer that must be pulled, and why: a word for metrics, and a sentence."""

    reason: str
    detail: str


class LayerLookup(Protocol):
    """Finds layers."""

    def find(self, wanted: WantedLayer) -> LazySource | NotLazy:
        """Where the layer is, or why it must be pulled. Raises nothing."""
        ...


class RepositoryLookup:
    """Looks in repositories that ``plane`` mounts, in this order; each may take ``patience`` seconds."""

    def __init__(
        self,
        plane: Plane,
        repositories: Sequence[str],
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._repositories = tuple(repositories)
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._paused: dict[str, tuple[float, str]] = {}

    def find(self, wanted: WantedLayer) -> LazySource | NotLazy:
        """The first repository that has the layer, by chain ID or by the digest of its blob."""
        missed = []
        for fqrn in self._repositories:
            found = self._ask(fqrn, wanted)
            if isinstance(found, LazySource):
                return found
            missed.append((fqrn, found))
        if not missed:
            return NotLazy("no-repository", "no repository is configured")
        return NotLazy(missed[0][1].reason, "; ".join(f"{fqrn}: {each.detail}" for fqrn, each in missed))

    def _ask(self, fqrn: str, wanted: WantedLayer) -> LazySource | NotLazy:
        with self._lock:
            until, why = self._paused.get(fqrn, (0.0, ""))
        if self._clock() < until:
            return NotLazy("unreachable", why)
        try:
            return within(self._patience, lambda: self._look(fqrn, wanted))
        except TimeoutError:
            why = f"it gave no answer within {self._patience:g} s"
        except CvmfsGraphdriverError as error:
            why = str(error)
        except OSError as error:
            why = f"it cannot be read: {error.strerror or error}"
        _log.warning("%s: %s; it is not asked again for %g s", fqrn, why, _PAUSE)
        with self._lock:
            self._paused[fqrn] = self._clock() + _PAUSE, why
        return NotLazy("unreachable", why)

    def _look(self, fqrn: str, wanted: WantedLayer) -> LazySource | NotLazy:
        """Raises CvmfsGraphdriverError, OSError: the repository cannot be asked."""
        root = os.open(
            self._plane.repository(LayerPath(fqrn, b"/")), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            index = ChainIndex.of_mount(root)
            missed = None
            if wanted.chain is not None:
                record = index.by_chain(wanted.chain, wanted.below)
                if not isinstance(record, Miss):
                    return LazySource(LayerPath(fqrn, record.directory), "chain")
                missed = record
            if wanted.layer is not None:
                directory = index.by_layer(wanted.layer)
                if not isinstance(directory, Miss):
                    return LazySource(LayerPath(fqrn, directory), "layer")
                missed = missed or directory
        finally:
            os.close(root)
        if missed is None:
            return NotLazy("no-key", "the chain ID of the layers below is not known")
        return NotLazy(missed.reason.value, missed.detail)
