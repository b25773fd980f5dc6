"""Who owns a container's files on this disk, if containers have user namespaces.

Owns: the mapping of numbers inside a container to numbers outside, in ranges as user_namespaces(7) has them.
Must not know: who decides on the ranges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cvmfs_graphdriver.layers.errors import UnmappedOwnerError

__all__ = ["IdMap", "IdRange", "Owners"]


@dataclass(frozen=True, slots=True)
class IdRange:
    """``size`` numbers from ``inside`` on are those from ``outside`` on."""

    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """Ranges of user or of group numbers; without any, all numbers are the same inside and outside."""

    ranges: Sequence[IdRange] = ()

    def outward(self, number: int) -> int:
        """The number outside for one inside. Raises UnmappedOwnerError."""
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.inside < each.size:
                return number - each.inside + each.outside
        raise UnmappedOwnerError(f"{number} owns a file, but has no number outside of containers' namespace")

    def inward(self, number: int) -> int:
        """The number inside for one outside. Raises UnmappedOwnerError."""
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.outside < each.size:
                return number - each.outside + each.inside
        raise UnmappedOwnerError(f"{number} owns a file, but has no number inside containers' namespace")


@dataclass(frozen=True, slots=True)
class Owners:
    """The maps for users and for groups."""

    users: IdMap = IdMap()
    groups: IdMap = IdMap()

    @property
    def root(self) -> tuple[int, int]:
        """Who outside is root inside."""
        return self.users.outward(0), self.groups.outward(0)
