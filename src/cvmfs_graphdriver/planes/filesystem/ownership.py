"""The owners of files, as users of this machine see them.

Owns: ``CVMFS_CLAIM_OWNERSHIP`` and the map files of ``CVMFS_UID_MAP`` and ``CVMFS_GID_MAP`` (CernVM-FS format
reference, section 3.6): lines ``<id or *> <id>``, with comments after ``#``. Must not know: where they are
configured.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cvmfs_graphdriver.client.errors import ConfigurationError

__all__ = ["UNCHANGED", "OwnerMap", "load_owner_map"]

_LAST = 2**32 - 1


class OwnerMap(NamedTuple):
    """Maps user or group IDs in the repository to IDs on this machine.

    ``default`` is for those that are not listed; None leaves them unchanged.
    """

    numbers: Mapping[int, int] = MappingProxyType({})
    default: int | None = None

    def __call__(self, number: int) -> int:
        return self.numbers.get(number, number if self.default is None else self.default)


UNCHANGED = OwnerMap()


def load_owner_map(path: Path) -> OwnerMap:
    """Read a map file. Raises ConfigurationError: it cannot be read, or has an invalid line."""
    numbers = {}
    default = None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the id map {path}: {error}") from error
    for position, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            source, target = words
            number = int(target)
            if not 0 <= number <= _LAST:
                raise ValueError(target)
            if source == "*":
                default = number
            else:
                numbers[int(source)] = number
        except ValueError as error:
            raise ConfigurationError(
                f"{path}, line {position}: {line.strip()!r} is not of the form '<id or *> <id>'"
            ) from error
    return OwnerMap(numbers, default)
