"""The limit of a process's memory (RLIMIT_DATA of getrlimit(2)), and whether it is about to be reached.

Owns: the measure. Must not know: what the memory is for, what happens then.
"""

import resource
from pathlib import Path

__all__ = ["is_used_up"]

_SHARE = 0.9


def is_used_up() -> bool:
    """Whether hardly any of the memory that this process may have is left."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])  # data and stacks
    return limit != resource.RLIM_INFINITY and pages * resource.getpagesize() > _SHARE * limit
