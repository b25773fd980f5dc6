"""Configuration files that a cluster gives to its nodes: written below /etc unless somebody else did it.

Owns: which files are ours, by a list of their digests. A file that somebody has changed on the node is left
alone from then on. Must not know: where the files come from, what is in them.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cvmfs_graphdriver.kernel.whole_file import write_whole_file
from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation.change import read

__all__ = ["GivenFiles", "read_given"]

_DIRECTORIES: Final = ("cvmfs", "cvmfs-snapshotter")
_LIMIT: Final = 1 << 20
_MOST: Final = 1000


def read_given(directory: Path) -> dict[str, bytes]:
    """The files below ``directory``, by their paths below /etc. Raises InstallationError.

    Names that begin with two dots are Kubernetes' own, which keeps the content there and links to it.
    """
    found: dict[str, bytes] = {}
    for name in _DIRECTORIES:
        for place, directories, files in os.walk(directory / name):
            directories[:] = sorted(each for each in directories if not each.startswith(".."))
            for file in sorted(each for each in files if not each.startswith("..")):
                path = Path(place, file)
                if not stat.S_ISREG(os.stat(path).st_mode) or os.stat(path).st_size > _LIMIT:
                    raise InstallationError(f"{path} is not a file of at most {_LIMIT >> 20} MiB")
                found[str(path.relative_to(directory))] = read(path) or b""
                if len(found) > _MOST:
                    raise InstallationError(f"{directory} has more than {_MOST} files")
    return found


class GivenFiles:
    """Those that were written below ``etc``, with the list ``cvmfs-snapshotter/given.sha256`` there."""

    def __init__(self, etc: Path = Path("/etc")) -> None:
        """Read the list. Raises InstallationError."""
        self._etc = etc
        self._list = etc / "cvmfs-snapshotter/given.sha256"
        lines = (read(self._list) or b"").decode(errors="replace").splitlines()
        self._ours: dict[str, set[str]] = {}
        for digest, _, path in (line.partition("  ") for line in lines):
            self._ours.setdefault(path, set()).add(digest)

    def write(self, wanted: Mapping[str, bytes]) -> tuple[bool, list[Path]]:
        """Write files, and remove those of ours that are not wanted any more.

        Returns whether anything changed, and which files were left alone. Raises InstallationError.
        """
        changed, foreign = False, []
        for path, content in wanted.items():
            there = read(self._etc / path)
            if there == content:
                continue
            if there is not None and not self._is_ours(path, there):
                foreign.append(self._etc / path)
                continue
            # First the list, so that a crash in between leaves no file that nobody knows.
            self._ours.setdefault(path, set()).add(hashlib.sha256(content).hexdigest())
            self._write(self._list, self._listing())
            self._write(self._etc / path, content)
            changed = True
        for path in self._ours.keys() - wanted.keys():
            changed = self._remove(path) or changed
        return changed, foreign

    def remove(self) -> None:
        """Remove all that are ours, and the list. Raises InstallationError."""
        for path in list(self._ours):
            self._remove(path)
        self._list.unlink(missing_ok=True)

    def _is_ours(self, path: str, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() in self._ours.get(path, ())

    def _remove(self, path: str) -> bool:
        there = read(self._etc / path)
        ours = there is not None and self._is_ours(path, there)
        if ours:
            (self._etc / path).unlink()
        del self._ours[path]
        self._write(self._list, self._listing())
        return ours

    def _listing(self) -> bytes:
        lines = (
            f"{digest}  {path}\n"
            for path, digests in sorted(self._ours.items())
            for digest in sorted(digests)
        )
        return "".join(lines).encode()

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole_file(path, content, exact=True, durable=True)
        except OSError as error:
            raise InstallationError(f"cannot write {path}: {error.strerror}") from error
