"""The C library's heap: what it does with memory that is given back (mallopt(3)).

Owns: its parameters, which hold for the whole process; where the C library has none, nothing happens. Must
not know: who uses memory for what.
"""

from contextlib import suppress

from cvmfs_graphdriver.kernel.syscalls import LIBC

__all__ = ["keep_freed_memory", "share_one_heap"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 64 << 20
_MAPPED = 64 << 20


def share_one_heap() -> None:
    """Dozens of threads that hardly ever run at once need no heap each."""
    _set(_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """For who takes and gives back megabytes all the time: the kernel need not clear the same pages again."""
    _set(_MMAP_THRESHOLD, _MAPPED)
    _set(_TRIM_THRESHOLD, _KEPT)


def _set(parameter: int, value: int) -> None:
    with suppress(AttributeError):  # another C library than glibc
        LIBC.mallopt(parameter, value)
