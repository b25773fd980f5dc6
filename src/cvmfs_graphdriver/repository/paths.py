"""Repository paths in messages for people.

Owns: showing bytes that may not be text on one line.
"""

__all__ = ["shown"]


def shown(path: bytes) -> str:
    """The path as text; unprintable characters are escaped."""
    text = path.decode("utf-8", "backslashreplace") or "/"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
