"""The times that a layer's directories get once nothing changes them any more.

Owns: remembering them, and forgetting those of a directory that is replaced with everything below it, at a
cost that depends on the path and on what is forgotten, never on all that is remembered. Must not know: how a
time is set.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["DirectoryTimes"]


@dataclass(slots=True)
class _Remembered:
    time: int | None = None
    below: dict[bytes, "_Remembered"] = field(default_factory=dict)


class DirectoryTimes:
    """Times in nanoseconds, by paths relative to the layer's root."""

    def __init__(self) -> None:
        self._root = _Remembered()

    def put(self, path: bytes, time: int) -> None:
        """Remember the time of a directory, which replaces an earlier one."""
        at = self._root
        for name in path.split(b"/"):
            at = at.below.get(name) or at.below.setdefault(name, _Remembered())
        at.time = time

    def forget(self, path: bytes) -> None:
        """Forget a directory and everything below it."""
        *parents, last = path.split(b"/")
        at: _Remembered | None = self._root
        for name in parents:
            at = at.below.get(name) if at else None
        if at is not None:
            at.below.pop(last, None)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Paths and times, directories before what is in them."""
        names: list[bytes] = []
        pending = [iter(self._root.below.items())]
        while pending:
            name, directory = next(pending[-1], (b"", None))
            if directory is None:
                pending.pop()
                del names[-1:]
                continue
            names.append(name)
            if directory.time is not None:
                yield b"/".join(names), directory.time
            pending.append(iter(directory.below.items()))
