"""Real proxies and servers for tests: squid and nginx, which can be killed, frozen and started again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from demo.containment import contained
from demo.daemons import free_port

__all__ = ["Daemon", "nginx", "open_to_daemons", "squid"]

_SQUID = """
http_port {address}:{port}
pid_filename none
access_log none
cache_log {directory}/cache.log
cache {keeps} all
cache_mem 8 MB
refresh_pattern . 60 20% 4320
coredump_dir {directory}
acl all_of_loopback dst 127.0.0.0/8
http_access allow all_of_loopback
http_access deny all
shutdown_lifetime 0 seconds
pinger_enable off
"""
_NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    keepalive_timeout 1d; keepalive_requests 100000;
    server {{ listen 127.0.0.1:{port}; root {root}; if (-f {directory}/fail) {{ return 500; }} }}
}}
"""


class Daemon:
    """A server that can be killed, stopped and started again, always at the same port."""

    def __init__(self, command: list[str], port: int, address: str = "127.0.0.1") -> None:
        self.port = port
        self.url = f"http://{address}:{port}"
        self._place = (address, port)
        self._command = command
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            contained(*self._command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with suppress(OSError), socket.create_connection(self._place, 1):
                return
            time.sleep(0.05)
        self.kill()
        pytest.fail(f"{self._command[0]} does not start")

    def kill(self) -> None:
        """Without a word, and with all that it started."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It goes on listening, and says nothing."""
        for process in _below(self._process.pid):
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in _below(self._process.pid):
            os.kill(process, signal.SIGCONT)


def _below(process: int) -> Iterator[int]:
    """The children of a process, and theirs."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _below(child)


@contextmanager
def squid(
    directory: Path, *, address: str = "127.0.0.1", port: int = 0, keeps: bool = False
) -> Iterator[Daemon]:
    """A proxy that keeps nothing, so that every request goes all the way, or everything in memory."""
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    port = port or free_port()
    config = directory / "squid.conf"
    config.write_text(
        _SQUID.format(address=address, port=port, directory=directory, keeps="allow" if keeps else "deny")
    )
    name = f"test{address.replace('.', 'x')}x{port}"
    daemon = Daemon(["squid", "-N", "-f", str(config), "-n", name], port, address)
    try:
        yield daemon
    finally:
        daemon.kill()


@contextmanager
def nginx(directory: Path, root: Path) -> Iterator[Daemon]:
    """Serves ``root``; answers 500 to everything while there is a file ``fail`` in ``directory``."""
    directory.mkdir()
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_NGINX.format(port=port, directory=directory, root=root))
    daemon = Daemon(["nginx", "-c", str(config), "-e", str(directory / "error.log")], port)
    try:
        yield daemon
    finally:
        daemon.kill()


def open_to_daemons(directory: Path) -> None:
    """Let other users, as whom squid and nginx run, come to a directory of a test's."""
    for parent in (directory, *directory.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
