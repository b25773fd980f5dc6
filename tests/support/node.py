"""A node of a cluster: a Debian root directory booted by systemd-nspawn, with real systemd and containerd.

Owns: start and end, what is kept out of it, and how images are run in it. It shares the network of this
machine, so that registries and repositories of the tests can be reached; Docker does not start in it, since
it would change that network.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cvmfs_graphdriver.kernel.mount import UmountFlag, mount, umount
from demo.daemons import first_child
from tests.support.mounts import wait_until

__all__ = ["Node", "node"]

_PATIENCE = 120
_OWN = ("var/lib/containerd", "var/lib/cvmfs-snapshotter")
"""Directories that cannot lie on the overlay, since there are overlays with upper layers in them."""
_DEFAULT = frozenset(
    {
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP"),
        *("SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    }
)
"""What containerd gives to containers."""


class Node:
    """A running node; ``root`` is its root directory."""

    def __init__(self, root: Path, log: Path, process: "subprocess.Popen[bytes]") -> None:
        self.root = root
        self.log = log
        self._process = process

    def __call__(self, *words: str) -> str:
        """Run a program on it; returns what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.log.read_text()[-2000:]}"
        return done.stdout

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        enter = ("nsenter", f"--target={self._systemd()}", "--all", "--root", "--wd=/", "--")
        return subprocess.run(
            [*enter, *words],
            capture_output=True,
            check=False,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )

    def container(
        self, image: str, arguments: Sequence[str], capabilities: Sequence[str], given: str
    ) -> tuple[int, str]:
        """Run an image as install.yaml does: the root directory at /host, ``given`` at /configuration.

        Returns its exit status, and what it prints. As with a kubelet, nobody waits for it who would end it
        when containerd is restarted.
        """
        assert set(capabilities) <= _DEFAULT
        name = f"c{time.monotonic_ns()}"
        self(
            *("ctr", "run", "--detach", f"--log-uri=file:///var/log/{name}"),
            *("--cpu-shares=0", "--read-only", "--seccomp"),
            *(f"--cap-drop=CAP_{each}" for each in sorted(_DEFAULT - set(capabilities))),
            *("--mount", "type=bind,src=/,dst=/host,options=rbind:rslave:rw"),
            *("--mount", f"type=bind,src={given},dst=/configuration,options=rbind:ro"),
            *(image, name, "/usr/bin/cvmfs-graphdriver", *arguments),
        )
        wait_until(lambda: self._has_stopped(name), _PATIENCE)
        told = re.search(r"non-zero exit code (\d+)", self.run("ctr", "tasks", "delete", name).stderr)
        status = int(told[1]) if told else 0
        self("ctr", "containers", "rm", name)
        return status, (self.root / f"var/log/{name}").read_text()

    def _has_stopped(self, name: str) -> bool:
        tasks = self.run("ctr", "tasks", "ls").stdout.splitlines()
        return any(line.split()[::2] == [name, "STOPPED"] for line in tasks)

    def is_up(self) -> bool:
        with suppress(LookupError, OSError):
            return self.run("sh", "-c", "systemctl is-active dbus && ctr version").returncode == 0
        return False

    def _systemd(self) -> int:
        """Its first process. Raises LookupError or OSError: there is none yet."""
        child = first_child(self._process.pid)
        if Path(f"/proc/{child}/comm").read_text() != "systemd\n":
            raise LookupError(child)
        return child


@contextmanager
def node(installed: Path, scratch: Path, *binds: str) -> Iterator[Node]:
    """Boot what is ``installed``, which is not changed; ``binds`` are options of systemd-nspawn."""
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for place in (upper, work, root, *(scratch / name for name in _OWN)):
        place.mkdir(parents=True)
    units = upper / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in ("docker.service", "docker.socket"):
        (units / unit).symlink_to("/dev/null")
    options = f"lowerdir={installed},upperdir={upper},workdir={work}"
    mount("overlay", root, "overlay", data=options.encode())
    own = [f"--bind={scratch / name}:/{name}" for name in _OWN]
    log = scratch / "log"
    command = [
        *("systemd-nspawn", "--boot", f"--directory={root}", f"--machine=node-{os.getpid()}"),
        *("--register=no", "--keep-unit", "--resolv-conf=off", "--console=pipe", "--capability=all"),
        *("--system-call-filter=@keyring bpf @mount", "--bind=/dev/fuse", *own, *binds),
    ]
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            found = Node(root, log, process)
            wait_until(lambda: process.poll() is not None or found.is_up(), _PATIENCE)
            assert process.poll() is None, log.read_text()
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)
    finally:
        umount(root, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
