"""A journal of calls in progress, to which Docker may never get an answer.

Owns: which layers are being created, removed, or used to prepare a container. If the driver is killed during
a call, Docker's retry has an empty body (moby, pkg/plugins/client.go) and is refused, so Docker forgets the
layer. Therefore a layer that is still in the journal when the driver starts belongs to nobody. An entry is
removed before the answer is sent, since Docker may use the layer from then on. Must not know: how layers are
created and removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Journal"]


class Journal:
    """Layers' ids in a directory, one file each; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def during(self, identity: str) -> Iterator[None]:
        """Keep an entry for a layer during the block."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / identity).touch()
        try:
            yield
        finally:
            self.forget(identity)

    def forget(self, identity: str) -> None:
        """Remove the entry."""
        with suppress(OSError):
            (self._directory / identity).unlink()

    def unanswered(self) -> Iterator[str]:
        """The layers that were in use when an earlier process died."""
        with suppress(FileNotFoundError):
            for path in list(self._directory.iterdir()):
                yield path.name
