"""The last lines of the log, kept in memory so that a running client can be asked for them.

Owns: their number and form. Must not know: who logs what.
"""

import logging
import time
from collections import deque

__all__ = ["RecentLog"]

_LINES = 100


class RecentLog(logging.Handler):
    """Keeps the last 100 lines of level INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        when = time.strftime("%d %b %Y %H:%M:%S", time.gmtime(record.created))
        self._lines.append(f"[{when} UTC] {record.getMessage()}\n")

    def text(self) -> str:
        """All lines, the oldest first."""
        return "".join(list(self._lines))
