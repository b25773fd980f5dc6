"""A file descriptor that several may use at once and that is closed after the last of them.

Owns: closing. Must not know: what the file is.
"""

import os

__all__ = ["Descriptor"]


class Descriptor:
    """Closes ``number`` when nobody refers to this object any more.

    Who reads holds a reference meanwhile, so no other thread can close the descriptor under its hands.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
