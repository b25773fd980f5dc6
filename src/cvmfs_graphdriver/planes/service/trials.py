"""Which revisions servers live with, and which they die of.

Owns: the verdict on a revision, and its consequence, a ``Retreat``: when three servers in a row have died
within ten seconds of showing the same one, and another worked before, that one is shown again for an hour, or
until there is a newer one. Must not know: processes.
"""

from cvmfs_graphdriver.client.retreat import Retreat
from cvmfs_graphdriver.planes.service.vitals import Shown
from cvmfs_graphdriver.repository.digest import Digest

__all__ = ["Trials"]

_PROBATION = 10.0
"""Seconds that a server must live with a revision for it to count as one that works."""
_DEATHS = 3
_AVOIDED = 3600.0
_REMEMBERED = 8


class Trials:
    """The revisions of one mount. All times are in seconds on one clock."""

    def __init__(self) -> None:
        self._last: Shown | None = None
        self._worked: list[str] = []
        self._avoided: dict[str, float] = {}
        self._suspect = ""
        self._deaths = 0

    def alive(self, shown: Shown | None, now: float) -> None:
        """A server lives and shows this. Call it often; what was seen only once may be garbled."""
        if shown is not None and shown == self._last and now - shown.since > _PROBATION:
            if shown.root == self._suspect:
                self._suspect, self._deaths = "", 0
            if shown.root not in self._worked[-1:]:
                self._worked = [*(root for root in self._worked if root != shown.root), shown.root]
                del self._worked[:-_REMEMBERED]
        self._last = shown

    def died(self, shown: Shown | None, now: float) -> str:
        """A server died while it showed this; returns what is to be shown instead, empty for the same."""
        if shown is None or now - shown.since > _PROBATION:
            self._suspect, self._deaths = "", 0
            return ""
        self._deaths = self._deaths + 1 if shown.root == self._suspect else 1
        self._suspect = shown.root
        if self._deaths < _DEATHS:
            return ""
        self._deaths = 0
        self._avoided = {root: until for root, until in self._avoided.items() if until > now}
        others = [root for root in self._worked if root != shown.root and root not in self._avoided]
        if not others:
            return ""
        self._avoided[shown.root] = now + _AVOIDED
        self._worked = others
        return others[-1]

    @property
    def retreat(self) -> Retreat:
        """What the next server has to avoid."""
        if not self._worked:
            return Retreat()
        avoided = tuple((Digest.parse(root), until) for root, until in self._avoided.items())
        return Retreat(avoided, Digest.parse(self._worked[-1]))
