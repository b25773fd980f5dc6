"""Whether a process that waits for a reply is about to die.

Owns: reading signals from ``/proc/PID/status``, as proc_pid_status(5) and signal(7) describe them. When a
signal reaches a process in a file system call, the kernel sends INTERRUPT. But the program may have a handler
for that signal and not expect a read to fail with EINTR, so a request is given up only if the signal ends the
process.
"""

from pathlib import Path

__all__ = ["dies", "is_dying"]

_KILL = 9
_HARMLESS = frozenset({17, 18, 19, 20, 21, 22, 23, 28})
"""CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH: by default these do not end the process."""

_DEADLY = sum(1 << number - 1 for number in range(1, 65) if number not in _HARMLESS)


def dies(status: bytes) -> bool:
    """Whether ``status``, the content of ``/proc/PID/status``, shows a pending fatal signal."""
    masks = {}
    for line in status.splitlines():
        key, _, value = line.partition(b":")
        if key in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt"):
            masks[key] = int(value, 16)
    pending = masks.get(b"SigPnd", 0) | masks.get(b"ShdPnd", 0)
    if pending & 1 << _KILL - 1:
        return True
    survived = masks.get(b"SigBlk", 0) | masks.get(b"SigIgn", 0) | masks.get(b"SigCgt", 0)
    return bool(pending & ~survived & _DEADLY)


def is_dying(pid: int) -> bool:
    """Whether the thread ``pid`` is about to be killed by a signal, or is gone.

    False for 0: the caller is in a PID namespace that we cannot see.
    """
    if pid == 0:
        return False
    try:
        return dies(Path(f"/proc/{pid}/status").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return True
