r"""What is mounted where: the table ``/proc/self/mountinfo``.

Owns: the form of its lines, as proc_pid_mountinfo(5) describes it. Paths are bytes with the kernel's octal
escapes (``\040`` for a space) decoded. Must not know: what the mounts are for.

>>> line = b"36 35 98:0 / /mnt\\040x rw,noatime shared:1 - ext4 /dev/root rw,errors=continue"
>>> parse_mountinfo(line)[0].mount_point
b'/mnt x'
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.kernel.errors import MountError

__all__ = ["MountEntry", "mount_at", "mount_of", "mounts_below", "parse_mountinfo", "read_mountinfo"]

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """One line of the table.

    ``device`` is the major and minor number of the file system, ``root`` the path inside it that is mounted,
    ``options`` those of the mount and ``super_options`` those of the file system, ``propagation`` the
    optional fields (``shared:1``, ``master:2``…).
    """

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: bytes
    mount_point: bytes
    options: tuple[bytes, ...]
    propagation: tuple[bytes, ...]
    filesystem: bytes
    source: bytes
    super_options: tuple[bytes, ...]


def parse_mountinfo(table: bytes) -> list[MountEntry]:
    """Parse the table, in the order in which the mounts were made.

    Raises MountError: a line does not have the documented form.
    """
    return [_parse(line) for line in table.splitlines()]


def read_mountinfo() -> list[MountEntry]:
    """The mounts that this process sees."""
    return parse_mountinfo(_MOUNTINFO.read_bytes())


def mount_at(path: bytes | str | os.PathLike[str]) -> MountEntry | None:
    """The mount that covers exactly ``path``, the topmost if there are several; None if there is none.

    Only the table is read, so a file system whose server hangs or has died is found, too. ``path`` must be
    absolute and free of symbolic links.
    """
    wanted = os.fsencode(path).rstrip(b"/") or b"/"
    return next((mount for mount in reversed(read_mountinfo()) if mount.mount_point == wanted), None)


def _parse(line: bytes) -> MountEntry:
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", 6)
        filesystem, source, super_options = fields[separator + 1 : separator + 4]
        major, _, minor = fields[2].partition(b":")
        return MountEntry(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=(int(major), int(minor)),
            root=_unescape(fields[3]),
            mount_point=_unescape(fields[4]),
            options=tuple(fields[5].split(b",")),
            propagation=tuple(fields[6:separator]),
            filesystem=_unescape(filesystem),
            source=_unescape(source),
            super_options=tuple(_unescape(option) for option in super_options.split(b",")),
        )
    except (ValueError, IndexError) as error:
        raise MountError(f"{_MOUNTINFO}: cannot parse the line {line!r}") from error


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def mounts_below(directory: bytes | str | os.PathLike[str]) -> list[MountEntry]:
    """The mounts below, but not at, an absolute path, in the order in which they were made."""
    prefix = os.path.realpath(os.fsencode(directory)) + b"/"
    return [mount for mount in read_mountinfo() if mount.mount_point.startswith(prefix)]


def mount_of(path: bytes | str | os.PathLike[str]) -> MountEntry:
    """The mount that contains a path. Raises OSError: there is no such path."""
    device = os.stat(path).st_dev
    real = os.path.realpath(os.fsencode(path))
    above = [
        mount
        for mount in read_mountinfo()
        if real == mount.mount_point or real.startswith(mount.mount_point.rstrip(b"/") + b"/")
    ]
    same = [mount for mount in above if os.makedev(*mount.device) == device]
    return max(same or above, key=lambda mount: len(mount.mount_point))
