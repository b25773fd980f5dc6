"""Which kernel is running.

Owns: the form of its version. Must not know: what a version is good for.
"""

import os
import re

__all__ = ["kernel_version"]


def kernel_version() -> tuple[int, int]:
    """Major and minor version of the running kernel."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
