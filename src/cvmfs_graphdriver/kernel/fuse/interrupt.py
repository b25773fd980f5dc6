"""Whether a process that waits for us is about to die.

Owns: the reading of ``/proc/PID/status`` for signals, as proc_pid_status(5) and signal(7) describe them. When
a signal reaches a process in a file system call, the kernel sends INTERRUPT; but a program may have a handler
for that signal and would be astonished by a read that fails with EINTR. Only a signal that ends the process
is a reason to give up.
"""

from pathlib import Path

__all__ = ["dies", "is_dying"]

_KILL = 9
_HARMLESS = frozenset({17, 18, 19, 20, 21, 22, 23, 28})
"""CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH: their default is not to end the process."""

_DEADLY = sum(1 << number - 1 for number in range(1, 65) if number not in _HARMLESS)


def dies(status: bytes) -> bool:
    """Whether ``status``, the content of ``/proc/PID/status``, shows a pending signal that is fatal."""
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

    False for 0: the caller lives in a process name space that we cannot see.
    """
    if pid == 0:
        return False
    try:
        return dies(Path(f"/proc/{pid}/status").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return True
