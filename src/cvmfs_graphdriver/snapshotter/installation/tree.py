"""The program's own files on a node: a directory for each version, and a link to the current one.

Owns: copying a version whole or not at all, which one is current, and removing those that no process uses.
Must not know: what is in a version, engines, systemd.

A version has the same path in the image and on every node, since its interpreter finds its libraries by
absolute paths. Processes that serve mounts go on with the version that started them, so a new version never
takes the place of an old one: it lies beside it.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cvmfs_graphdriver.snapshotter.errors import InstallationError

__all__ = ["PROGRAM", "copy_to", "make_current", "remove_all", "remove_unused"]

_HOME = Path("/opt/cvmfs-snapshotter")
_CURRENT = _HOME / "current"
_NEW = ".new-"
"""How the name of a version begins while it is being copied."""

PROGRAM = _CURRENT / "bin/cvmfs-graphdriver"
"""The program of the current version."""


def copy_to(root: Path) -> Path:
    """Copy the running version to the host below ``root`` unless it is there. Returns its path on the host.

    Raises InstallationError.
    """
    version = Path(sys.prefix).parent
    if version.parent != _HOME:
        raise InstallationError(
            f"this program is not in {_HOME}; run the one in the image that 'make snapshotter-image' builds"
        )
    # A link such as /opt -> /var/opt is meant for the host.
    target = _below(root, _HOME.parent) / _HOME.name / version.name
    new = target.with_name(f"{_NEW}{version.name}")
    try:
        if not target.exists():
            if new.exists():
                shutil.rmtree(new)
            shutil.copytree(version, new, symlinks=True)
            os.sync()
            os.rename(new, target)
    except (OSError, shutil.Error) as error:
        raise InstallationError(f"cannot copy {version} to the host: {error}") from error
    return version


def make_current(version: Path) -> bool:
    """Let the link lead to ``version``; returns whether it did not do so before. Raises InstallationError."""
    new = _HOME / f"{_NEW}current"
    try:
        with suppress(FileNotFoundError, OSError):
            if os.readlink(_CURRENT) == version.name:
                return False
        new.unlink(missing_ok=True)
        new.symlink_to(version.name)
        os.replace(new, _CURRENT)
    except OSError as error:
        raise InstallationError(f"cannot make {version} the current version: {error.strerror}") from error
    return True


def remove_unused() -> list[Path]:
    """Remove all versions but the current one and those that processes use; returns what stays besides it.

    Raises InstallationError.
    """
    current = _CURRENT.resolve()
    return _remove([version for version in _versions() if version != current])


def remove_all() -> list[Path]:
    """Remove all versions but those that processes use; returns them. Raises InstallationError."""
    with suppress(FileNotFoundError):
        _CURRENT.unlink()
    left = _remove(list(_versions()))
    if not left:
        with suppress(FileNotFoundError):
            _HOME.rmdir()
    return left


def _remove(versions: list[Path]) -> list[Path]:
    used = _in_use()
    left = []
    for version in versions:
        if version in used:
            left.append(version)
            continue
        # Under another name, so that what is left of it after a crash is not taken for a version.
        doomed = version.with_name(f"{_NEW}{version.name.removeprefix(_NEW)}")
        try:
            os.rename(version, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise InstallationError(f"cannot remove {version}: {error.strerror}") from error
    return left


def _versions() -> Iterator[Path]:
    if _HOME.is_dir():
        yield from (path for path in sorted(_HOME.iterdir()) if path.is_dir() and not path.is_symlink())


def _in_use() -> set[Path]:
    """The versions whose interpreter is the first word of a process's command line, but for this process."""
    found: set[Path] = set()
    me = Path("/proc/self").resolve()
    for process in Path("/proc").glob("[0-9]*"):
        # That it can be read without any privilege is why it is preferred to "exe".
        with suppress(OSError):
            program = Path(os.fsdecode((process / "cmdline").read_bytes().partition(b"\0")[0]))
            if process != me and program.is_relative_to(_HOME) and program != _HOME:
                found.add(_HOME / program.relative_to(_HOME).parts[0])
    return found


def _below(root: Path, path: Path) -> Path:
    """An absolute path of the host, seen from outside; links lead where they lead on the host."""
    place = root
    parts = list(path.parts[1:])
    for _ in range(40):
        if not parts:
            return place
        part = parts.pop(0)
        if part == "..":
            place = place if place == root else place.parent
            continue
        try:
            link = os.readlink(place / part)
        except OSError:
            place /= part
            continue
        parts = [*Path(link.lstrip("/")).parts, *parts]
        if link.startswith("/"):
            place = root
    raise InstallationError(f"{path} leads through too many links")
