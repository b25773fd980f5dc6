"""A revision that is not to be shown, and the one to be shown instead.

Owns: the rule that a client follows when servers have died of a revision. Must not know: who saw them die.
"""

import time
from typing import NamedTuple

from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["NO_RETREAT", "Retreat"]


class Retreat(NamedTuple):
    """Root catalogs that servers died of, each with the time of ``time.monotonic`` until which it is avoided.

    ``good`` is the one that worked last.
    """

    avoided: tuple[tuple[Digest, float], ...] = ()
    good: Digest | None = None

    def from_(self, root: Digest) -> Digest | None:
        """The root catalog to open instead of ``root``; None if ``root`` may be opened."""
        return self.good if dict(self.avoided).get(root, 0.0) > time.monotonic() else None


NO_RETREAT = Retreat()
"""Nothing is avoided."""
