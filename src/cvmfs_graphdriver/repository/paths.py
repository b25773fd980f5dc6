"""Paths of repositories in messages for people.

Owns: how bytes that need not be text are shown on one line. Must not know: where.
"""

__all__ = ["shown"]


def shown(path: bytes) -> str:
    """The path as text; what cannot be printed is escaped."""
    text = path.decode("utf-8", "backslashreplace") or "/"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
