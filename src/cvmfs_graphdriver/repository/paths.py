"""Repository paths in messages for people.

Owns: showing bytes that may not be text on one line.
"""

from cvmfs_graphdriver.errors import printable

__all__ = ["shown"]


def shown(path: bytes) -> str:
    """The path as text; unprintable characters are escaped."""
    return printable(path.decode("utf-8", "backslashreplace") or "/")
