"""The C library's heap: what it does with freed memory (mallopt(3)).

Owns: its parameters, which apply to the whole process; a C library without them is left alone. Must not know:
who uses memory for what.
"""

from contextlib import suppress

from cvmfs_graphdriver.kernel.syscalls import LIBC

__all__ = ["keep_freed_memory", "share_one_heap"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 64 << 20
_MAPPED = 64 << 20


def share_one_heap() -> None:
    """Use one heap for all threads: dozens that hardly ever run at the same time need no more."""
    _set(_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Keep freed memory: a process that frees and allocates megabytes all the time saves clearing pages."""
    _set(_MMAP_THRESHOLD, _MAPPED)
    _set(_TRIM_THRESHOLD, _KEPT)


def _set(parameter: int, value: int) -> None:
    with suppress(AttributeError):  # not glibc
        LIBC.mallopt(parameter, value)
