"""Size limits of containers' layers: ``--storage-opt size=`` and ``overlay2.size``.

Owns: the syntax of sizes, overlay2's rules for when limits are possible, and which project each layer has.
Must not know: the kernel's interface.
"""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from cvmfs_graphdriver.graphdriver.errors import DriverOptionError
from cvmfs_graphdriver.kernel.projectquota import limit_project, project_of, put_into_project

__all__ = ["SizeLimits", "parse_size"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?i?b?", re.IGNORECASE)
_UNITS = "kmgtp"
_FIRST_PROJECT = 1 << 24
"""Docker's own drivers count from 1; projects must not be shared."""


def parse_size(name: str, text: str) -> int:
    """Parse a size as Docker does: ``10G``, ``1.5 gb``, ``4096``. Returns bytes. Raises DriverOptionError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise DriverOptionError(f"{name} must be a size such as 10G, not {text[:80]!r}")
    power = _UNITS.index(match[2].lower()) + 1 if match[2] else 0
    return int(float(match[1]) * 1024**power)


class SizeLimits:
    """The limits of the layers in ``home``. As with overlay2, they require xfs with project quotas.

    Raises DriverOptionError: a ``default`` size is given, but limits are not possible.
    """

    def __init__(self, home: Path, filesystem: str, default: int = 0) -> None:
        self._home = home
        self._default = default
        self._lock = threading.Lock()
        self._last = _FIRST_PROJECT
        self.obstacle = self._find_obstacle(filesystem)
        if default and self.obstacle:
            raise DriverOptionError(f"storage-opt overlay2.size is not supported: {self.obstacle}")
        if not self.obstacle:
            self._last = max([self._last, *map(self._project, home.glob("*/diff"))])

    def wanted(self, options: Mapping[str, str], *, container: bool) -> int:
        """The limit in bytes for a new layer with these options; 0 for none. Raises DriverOptionError."""
        size = self._default if container else 0
        for name, value in options.items():
            if name.lower() != "size":
                raise DriverOptionError(f"unknown option {name}: --storage-opt supports size only")
            if not container:
                raise DriverOptionError("--storage-opt size is only supported for ReadWrite Layers")
            if self.obstacle:
                raise DriverOptionError(
                    "--storage-opt is supported only for overlay over xfs with 'pquota' mount option: "
                    + self.obstacle
                )
            size = parse_size("--storage-opt size", value)
        return size

    def limit(self, layer: Path, size: int) -> None:
        """Limit a new, empty layer. Raises DriverOptionError."""
        with self._lock:
            self._last += 1
            project = self._last
        try:
            for name in ("diff", "work"):
                directory = os.open(layer / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    put_into_project(directory, project)
                    limit_project(directory, project, size)
                finally:
                    os.close(directory)
        except OSError as error:
            raise DriverOptionError(f"cannot limit the size of {layer}: {error.strerror}") from error

    def _find_obstacle(self, filesystem: str) -> str:
        """Why limits are not possible; empty if they are."""
        if filesystem != "xfs":
            return f"{self._home} is on {filesystem}"
        home = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            limit_project(home, _FIRST_PROJECT, 0)
        except OSError as error:
            return f"the file system of {self._home} has no project quota ({error.strerror})"
        finally:
            os.close(home)
        return ""

    def _project(self, place: Path) -> int:
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return project_of(directory)
        finally:
            os.close(directory)
