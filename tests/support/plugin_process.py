"""The plugin as a process of its own, and Docker's side of the conversation."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below

__all__ = ["Plugin", "RefusedError", "running_plugin"]


class RefusedError(Exception):
    """The plugin answered ``Err``."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("plugin")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.fspath(self._path))


class Plugin:
    """A plugin process below ``directory``."""

    def __init__(self, directory: Path, *, as_init: bool = False) -> None:
        self.directory = directory
        self._wrapper = ["unshare", "--pid", "--fork", "--kill-child"] if as_init else []
        self.base = directory / "mnt"
        self.home = self.base / "cvmfs:latest"  # Docker makes the home of a driver's name and tag
        self.etc = directory / "etc"
        self.commit = directory / "commit"
        self._socket = directory / "plugin.sock"
        self._log = directory / "log"
        self.base.mkdir()
        self.etc.mkdir()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()", "plugin"]
        command += ["--socket", str(self._socket), "--base", str(self.base), "--etc", str(self.etc)]
        command += ["--commit", str(self.commit)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._wrapper, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                assert self.call("Plugin.Activate") == {"Implements": ["GraphDriver"]}
            except OSError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.02)
            else:
                return

    @property
    def pid(self) -> int:
        """The plugin's first process."""
        pid = self.process.pid
        if not self._wrapper:
            return pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        os.kill(self.pid, number)
        return self.process.wait(10)

    def init(self, *options: str) -> None:
        self.call("GraphDriver.Init", Home=str(self.home), Opts=list(options), UIDMaps=None, GIDMaps=None)

    def call(self, method: str, **arguments: Any) -> Any:
        """One call as Docker makes it. Raises RefusedError."""
        answer = json.loads(self.stream(method, json.dumps(arguments).encode()))
        if answer.get("Err"):
            raise RefusedError(answer["Err"])
        return answer

    def stream(self, method: str, body: Any, *, chunked: bool = False) -> bytes:
        """The same with bytes in and out."""
        status, data = self.exchange(method, body, chunked=chunked)
        assert status == 200, data
        return data

    def exchange(self, method: str, body: Any, *, chunked: bool = False) -> tuple[int, bytes]:
        """The same, whatever the status."""
        connection = _Connection(self._socket)
        try:
            connection.request("POST", "/" + method, body, encode_chunked=chunked, headers={
                "Content-Type": "application/vnd.docker.plugins.v1.2+json",
                **({"Transfer-Encoding": "chunked"} if chunked else {}),
            })  # fmt: skip
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def apply(self, identity: str, tar: bytes, parent: str = "") -> int:
        """ApplyDiff, in chunks as Docker sends it; returns the size."""
        pieces = (tar[at : at + 5000] for at in range(0, len(tar), 5000))
        answer = json.loads(
            self.stream(f"GraphDriver.ApplyDiff?id={identity}&parent={parent}", pieces, chunked=True)
        )
        if answer.get("Err"):
            raise RefusedError(answer["Err"])
        return int(answer["Size"])

    def diff(self, identity: str, parent: str = "") -> bytes:
        """Diff: the layer's tar stream."""
        return self.stream("GraphDriver.Diff", json.dumps({"ID": identity, "Parent": parent}).encode())


@contextmanager
def running_plugin(directory: Path, *, as_init: bool = False) -> Iterator[Plugin]:
    """A plugin that ends with the block, with every mount below it; ``as_init``: it is process 1."""
    plugin = Plugin(directory, as_init=as_init)
    try:
        yield plugin
    finally:
        if plugin.process.poll() is None:
            plugin.kill(signal.SIGTERM)
        for mount in reversed(mounts_below(directory)):
            umount(mount.mount_point, UmountFlag.DETACH)
