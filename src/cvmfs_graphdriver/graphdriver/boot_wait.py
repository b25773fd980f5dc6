"""Waiting for repositories that cannot be reached just after the node has started.

Owns: how long after the driver's start calls wait, and for how long. Docker starts containers with a
restart policy once when it starts, and does not try again if the driver fails then. Must not know: what the
calls do.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cvmfs_graphdriver.planes.errors import ServerError

__all__ = ["BOOT_WAIT", "BootWait"]

_log = logging.getLogger(__name__)

BOOT_WAIT = 30.0
"""Seconds from the first call that has to wait until the last one gives up."""
_BOOT = 300.0
"""Seconds after the start of the driver in which calls begin to wait."""
_STEP = 1.0
"""Seconds between two attempts."""

Result = TypeVar("Result")


class BootWait:
    """Lets calls wait in the first minutes of this object's life, all together at most ``seconds``.

    Docker's own start waits for these calls, and it makes several for a container, one after the other.
    """

    def __init__(self, seconds: float = BOOT_WAIT) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + _BOOT
        self._lock = threading.Lock()
        self._deadline = 0.0

    def until_reachable(self, action: Callable[[], Result]) -> Result:
        """Carry out an action, again and again while it fails because a repository cannot be reached.

        Raises whatever it raises at last.
        """
        while True:
            try:
                return action()
            except ServerError as error:
                if not error.is_unreachable or not self._may_wait(error):
                    raise
            time.sleep(_STEP)

    def _may_wait(self, error: ServerError) -> bool:
        now = time.monotonic()
        with self._lock:
            if not self._deadline and now < self._end:
                self._deadline = now + self._seconds
                _log.warning("waiting up to %.0f s, since this is the start: %s", self._seconds, error)
            return now + _STEP <= self._deadline
