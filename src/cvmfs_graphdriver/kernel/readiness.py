"""Telling systemd that a service is ready.

Owns: the message, as sd_notify(3) describes it. Must not know: the service.
"""

import os
import socket
from contextlib import suppress

__all__ = ["notify_ready"]


def notify_ready() -> None:
    """Say so where NOTIFY_SOCKET names somebody who listens; processes started later do not say it again."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    place = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(b"READY=1", place)
