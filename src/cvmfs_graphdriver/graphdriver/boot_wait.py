"""Waiting for repositories that cannot be reached just after the node has started.

Owns: how long after the driver's start a call waits, and for how long. Docker starts containers with a
restart policy once when it starts, and does not try again if the driver fails then. Must not know: what the
calls do.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from cvmfs_graphdriver.planes.errors import ServerError

__all__ = ["BOOT_WAIT", "BootWait"]

_log = logging.getLogger(__name__)

BOOT_WAIT = 20.0
"""Seconds that a call waits. Docker's client may give up after 30, and the last attempt takes time, too."""
_BOOT = 300.0
"""Seconds after the start of the driver in which calls wait."""
_STEP = 1.0
"""Seconds between two attempts."""

Result = TypeVar("Result")


class BootWait:
    """Lets calls wait up to ``seconds`` each in the first minutes of this object's life."""

    def __init__(self, seconds: float = BOOT_WAIT) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + _BOOT

    def until_reachable(self, action: Callable[[], Result]) -> Result:
        """Carry out an action, again and again while it fails because a repository cannot be reached.

        Raises whatever it raises at last.
        """
        deadline = min(self._end, time.monotonic() + self._seconds)
        told = False
        while True:
            try:
                return action()
            except ServerError as error:
                if not error.is_unreachable or time.monotonic() + _STEP > deadline:
                    raise
                if not told:
                    _log.warning("waiting up to %.0f s after the start: %s", self._seconds, error)
                    told = True
            time.sleep(_STEP)
