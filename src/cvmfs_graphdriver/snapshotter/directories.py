"""Snapshots' directories: what is unpacked on this disk.

Owns: their layout below the snapshotter's state directory,

    <root>/snapshots/<id>/fs     the snapshot's own files
    <root>/snapshots/<id>/work   overlayfs' work directory, while it is active
    <root>/l/<short name>        links to lower directories, for mount options that would be too long

A directory appears by a rename, so it is whole; a directory without a snapshot is garbage. Must not know:
which snapshots there are.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.layers.remove import remove_directory
from cvmfs_graphdriver.snapshotter.errors import SnapshotterError

__all__ = ["SnapshotDirectories"]

_log = logging.getLogger(__name__)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NEW, _GONE = ".new-", ".gone-"


class SnapshotDirectories:
    """The directories below ``root``."""

    def __init__(self, root: Path) -> None:
        self._snapshots = root / "snapshots"
        self._links = root / "l"
        for directory in (self._snapshots, self._links):
            directory.mkdir(mode=0o700, exist_ok=True)

    def files(self, identity: int) -> Path:
        """The snapshot's own files."""
        return self._snapshots / str(identity) / "fs"

    def work(self, identity: int) -> Path:
        """Overlayfs' work directory."""
        return self._snapshots / str(identity) / "work"

    def has(self, identity: int) -> bool:
        """Whether the directory exists."""
        return self.files(identity).is_dir()

    def create(self, identity: int, owner: tuple[int, int], *, writable: bool) -> None:
        """An empty directory; ``owner`` (user, group) is that of the root of what is below it.

        Raises SnapshotterError.
        """
        new = self._snapshots / f"{_NEW}{identity}"
        try:
            new.mkdir(mode=0o700)
            (new / "fs").mkdir()
            (new / "fs").chmod(0o755)
            os.chown(new / "fs", *owner)
            if writable:
                (new / "work").mkdir(mode=0o711)
            new.rename(self._snapshots / str(identity))
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(new)
            raise SnapshotterError(f"cannot create a directory in {self._snapshots}: {error}") from error

    def remove_others(self, kept: Iterable[int]) -> list[str]:
        """Take away the directories of all snapshots but these; returns names for ``free``.

        Nothing must be created meanwhile. From then on they are nobody's.
        """
        known = {str(identity) for identity in kept}
        gone = []
        for name in os.listdir(self._snapshots):
            if name not in known:
                new = name if name.startswith(_GONE) else f"{_GONE}{secrets.token_hex(8)}"
                (self._snapshots / name).rename(self._snapshots / new)
                gone.append(new)
        for name in os.listdir(self._links):
            target = os.readlink(self._links / name)
            if not os.path.lexists(self._links / target):
                (self._links / name).unlink()
        return gone

    def free(self, names: Iterable[str]) -> None:
        """Remove these directories with all that is in them."""
        top = os.open(self._snapshots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                problems: list[OSError] = []
                remove_directory(top, os.fsencode(name), problems.append)
                if problems:
                    _log.warning("cannot remove all of %s/%s: %s", self._snapshots, name, problems[0])
        finally:
            os.close(top)

    def shorten(self, directory: Path) -> Path:
        """A link with a short name to a directory below ``root``, created if it does not exist."""
        target = os.path.relpath(directory, self._links)
        name = _short(target)
        link = self._links / name
        with suppress(FileExistsError):
            link.symlink_to(target)
        return link


def _short(target: str) -> str:
    """A short name: the first letter, and the numbers in the path in base 36."""
    parts = [target.lstrip("./")[:1]]
    for digits in re.findall(r"[0-9]+", target):
        number, text = int(digits), ""
        while number or not text:
            number, digit = divmod(number, 36)
            text = _DIGITS[digit] + text
        parts.append(text)
    return parts[0] + "-".join(parts[1:])
