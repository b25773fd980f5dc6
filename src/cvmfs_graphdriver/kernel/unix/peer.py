"""Who serves a unix socket (SO_PEERCRED, unix(7)).

Owns: asking the kernel, by a connection that says nothing. Must not know: the protocol.
"""

import socket
import struct
from pathlib import Path

__all__ = ["serving_pid"]

_CREDENTIALS = struct.Struct("3i")
_PATIENCE = 2.0


def serving_pid(path: Path) -> int | None:
    """The process that listens at a socket; None if nobody does.

    It is 0 for a process in another PID namespace.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    pid, _, _ = _CREDENTIALS.unpack(answer)
    return int(pid)
