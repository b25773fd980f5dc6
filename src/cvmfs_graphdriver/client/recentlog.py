"""The last lines of the log, kept in memory for those who ask a running client.

Owns: how many, and their form. Must not know: who logs what.
"""

import logging
import time
from collections import deque

__all__ = ["RecentLog"]

_LINES = 100


class RecentLog(logging.Handler):
    """Keeps the last 100 lines of at least the level INFO."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        when = time.strftime("%d %b %Y %H:%M:%S", time.gmtime(record.created))
        self._lines.append(f"[{when} UTC] {record.getMessage()}\n")

    def text(self) -> str:
        """All lines, the oldest first."""
        return "".join(list(self._lines))
