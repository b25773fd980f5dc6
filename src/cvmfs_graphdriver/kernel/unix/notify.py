"""Telling systemd how far a service has come (sd_notify(3)).

Owns: the datagram, and where it is sent. Must not know: which service this is.
"""

import os
import socket

__all__ = ["notify"]


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` to the process that started us, if it wants to know.

    Nothing is raised: a service that cannot tell anybody is still a service.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1)
            sender.sendto(state.encode(), address)
    except OSError:
        return
