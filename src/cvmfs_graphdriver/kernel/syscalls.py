"""The C library through ctypes, for system calls that the standard library does not offer.

Owns: how arguments are passed, and how failures become OSError. Must not know: what any call is for. System
call numbers above 424 are the same on all architectures of Linux.
"""

import ctypes
import os

__all__ = ["LIBC", "system_call"]

LIBC = ctypes.CDLL(None, use_errno=True)
"""The C library. Its functions release the interpreter lock and set ``ctypes.get_errno()``."""

_syscall = LIBC.syscall
_syscall.restype = ctypes.c_long


def system_call(number: int, *arguments: "int | bytes | ctypes.Array[ctypes.c_char] | None") -> int:
    """Make one system call; returns its result. Raises OSError.

    Integers are passed as 64-bit values, bytes as pointers to null-terminated strings, None as a null
    pointer.
    """
    result = int(_syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
