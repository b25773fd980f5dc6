"""Log records of one line each, whatever is in them.

Owns: the form of a record: names from images and servers cannot begin a line of their own or command a
terminal. Must not know: where records go.
"""

import logging

from cvmfs_graphdriver.errors import printable

__all__ = ["LineFormatter", "log_to_terminal"]


class LineFormatter(logging.Formatter):
    """Formats records as usual, but escapes line breaks and control characters, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_terminal(form: str, level: int | str) -> None:
    """Log to standard error, unless logging has already been set up."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(form))
    logging.basicConfig(handlers=[handler], level=level)
