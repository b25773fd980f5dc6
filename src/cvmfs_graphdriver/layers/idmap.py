"""Owners of containers' files on this disk, if containers have user namespaces.

Owns: the mapping between user and group ids inside and outside of containers, in ranges as described in
user_namespaces(7). Must not know: where the ranges come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cvmfs_graphdriver.layers.errors import UnmappedOwnerError

__all__ = ["IdMap", "IdRange", "Owners"]


@dataclass(frozen=True, slots=True)
class IdRange:
    """``size`` ids starting at ``inside`` correspond to those starting at ``outside``."""

    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """Ranges of user or group ids; without any, ids are the same inside and outside."""

    ranges: Sequence[IdRange] = ()

    def outward(self, number: int) -> int:
        """The id outside for an id inside. Raises UnmappedOwnerError."""
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.inside < each.size:
                return number - each.inside + each.outside
        raise UnmappedOwnerError(f"a file's owner {number} has no id outside of the containers' namespace")

    def inward(self, number: int) -> int:
        """The id inside for an id outside. Raises UnmappedOwnerError."""
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.outside < each.size:
                return number - each.outside + each.inside
        raise UnmappedOwnerError(f"a file's owner {number} has no id inside the containers' namespace")


@dataclass(frozen=True, slots=True)
class Owners:
    """The maps for users and for groups."""

    users: IdMap = IdMap()
    groups: IdMap = IdMap()

    @property
    def root(self) -> tuple[int, int]:
        """The ids outside of the root user and group inside."""
        return self.users.outward(0), self.groups.outward(0)
