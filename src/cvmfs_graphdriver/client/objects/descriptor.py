"""A file descriptor that several threads may use, closed after the last of them.

Must not know: what the file is.
"""

import os

__all__ = ["Descriptor"]


class Descriptor:
    """Closes ``number`` when this object is no longer referenced.

    A reader holds a reference, so no other thread can close the descriptor while it reads.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
