"""Locks on files (flock(2)) that are waited for no longer than a while.

Owns: the waiting, since flock(2) has no limit of its own: another process may hold the lock and be stopped.
Must not know: what is locked.
"""

import errno
import fcntl
import time

from cvmfs_graphdriver.kernel.waiting.watch import waiting

__all__ = ["lock"]

_PATIENCE = 60.0
_FIRST, _LONGEST = 0.0005, 0.05


def lock(file: int, operation: int, name: str) -> None:
    """Lock a file with ``LOCK_SH`` or ``LOCK_EX``. Raises TimeoutError, which is an OSError, and OSError."""
    deadline = time.monotonic() + _PATIENCE
    pause = _FIRST
    with waiting(f"the lock of {name}"):
        while True:
            try:
                fcntl.flock(file, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        errno.ETIMEDOUT, f"another process has had it locked for {_PATIENCE:g} s"
                    ) from None
            else:
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
