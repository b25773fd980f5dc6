"""The end of a repository's whitelist, seen coming.

Owns: the whitelist that was verified last, when to fetch it again although nothing new was published, and
telling the log, once a day. Must not know: how a whitelist is fetched and verified.
"""

import logging
import time
from collections.abc import Callable
from datetime import date, datetime

from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

__all__ = ["WhitelistWatch"]

_AGAIN = 3600.0
"""The shortest time between two looks at a whitelist that ends soon, in seconds."""

_log = logging.getLogger(__name__)


class WhitelistWatch:
    """Watches the whitelist of one repository; ``now`` is the clock that it expires by."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._whitelist: Whitelist | None = None
        self._looked = 0.0
        self._told: tuple[str, date] | None = None

    @property
    def expires(self) -> datetime | None:
        """When it expires; None if it has not been seen yet."""
        return self._whitelist.expires if self._whitelist else None

    @property
    def problem(self) -> str:
        """What to tell people if it has expired or will soon; else empty."""
        return self._whitelist.problem(self._now()) if self._whitelist else ""

    @property
    def is_due(self) -> bool:
        """Whether it must be fetched: it was never seen, or it ends soon and may have been signed again."""
        if self._whitelist is None:
            return True
        return self._whitelist.ends_soon(self._now()) and time.monotonic() - self._looked > _AGAIN

    def see(self, whitelist: Whitelist) -> None:
        """Take note of a whitelist whose signature is right."""
        self._looked = time.monotonic()
        self._whitelist = whitelist
        self.tell()

    def tell(self) -> None:
        """Log that it ends or has ended, unless that was said today."""
        now = self._now()
        said = (self.problem, now.date())
        if said[0] and said != self._told and self._whitelist:
            self._told = said
            level = logging.ERROR if self._whitelist.expired(now) else logging.WARNING
            _log.log(level, "%s", said[0])
