"""How much memory a process and its descendants use; shared memory is counted once.

Owns: proportional set sizes (proc(5), smaps_rollup). Must not know: what the processes do.
"""

import time
from pathlib import Path

__all__ = ["memory", "peak_memory"]

_PAUSE = 0.05


def memory(pid: int) -> int:
    """Bytes that a process and its descendants use now; 0 when they have ended."""
    total = 0
    pending = [pid]
    while pending:
        process = pending.pop()
        place = Path(f"/proc/{process}")
        try:
            lines = (place / "smaps_rollup").read_text().splitlines()
            for thread in (place / "task").iterdir():  # each has the children that it started
                pending += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
        total += next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return total


def peak_memory(pid: int) -> int:
    """The most that they use until they have ended, sampled."""
    peak = 0
    while used := memory(pid):
        peak = max(peak, used)
        time.sleep(_PAUSE)
    return peak
