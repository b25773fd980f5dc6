"""The root of the one tree of errors, and the contract that every error of the project keeps.

Owns: the base class, and how untrusted text appears in messages. Each room has its own families in
``<room>/errors.py``, derived from this class, with names that end in ``Error``. Must not know: any room.

The contract:

* The message is for the person at the terminal: what happened, to which object, what to do about it.
* ``exit_code`` is the exit status of a command that ends by this error; it is part of the interface and
  stands in docs/errors.md (a test compares the two). Codes by room: 1 unexpected, 2 usage, 10-19
  repository, 20-29 client, 30-39 oci, 40-49 publisher, 50-59 kernel and planes, 60-69 conversion,
  70-79 layers and graphdriver, 80-89 shell, 90-99 snapshotter.
* Exceptions of other libraries are mapped at the border (``raise OurError(...) from error``).
"""

from typing import ClassVar

__all__ = ["CvmfsGraphdriverError", "printable"]


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would obey: such characters are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class CvmfsGraphdriverError(Exception):
    """Something that the user should be told in one line."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message, in which names from images and servers are harmless."""
        return printable(super().__str__())
