"""Calls that Docker may never get an answer to: written down before they are carried out.

Owns: which layers are being made or removed, or prepare a container. Docker sends a call once: if the driver
is killed in the middle, the second attempt comes with an empty body (moby, pkg/plugins/client.go), is
refused, and Docker forgets the layer. So what was being made when the driver died is nobody's, as is what was
being removed. What was made may be Docker's an instant later, so it stands here no longer then. Must not
know: how layers are made and removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Journal"]


class Journal:
    """Identities in a directory, a file each; safe for any number of threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def during(self, identity: str) -> Iterator[None]:
        """Have it written down while something happens to a layer."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / identity).touch()
        try:
            yield
        finally:
            self.forget(identity)

    def forget(self, identity: str) -> None:
        """Nothing happens to it any more."""
        with suppress(OSError):
            (self._directory / identity).unlink()

    def unanswered(self) -> Iterator[str]:
        """What had begun when an earlier process died."""
        with suppress(FileNotFoundError):
            for path in list(self._directory.iterdir()):
                yield path.name
