"""Asking the host's systemd to start and stop services.

Owns: the call of ``systemctl``. Must not know: which services there are.
"""

import os
import subprocess

from cvmfs_graphdriver.snapshotter.errors import InstallationError

__all__ = ["exists", "systemctl"]

_PATIENCE = 300.0
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # By its private socket, systemctl cannot reach systemd from a PID namespace of its own.
    "SYSTEMCTL_FORCE_BUS": "1",
    "SYSTEMD_IGNORE_CHROOT": "1",
}


def systemctl(*words: str) -> None:
    """Run ``systemctl``, which also works within a chroot to the host. Raises InstallationError."""
    try:
        done = _run(*words)
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallationError(f"cannot run systemctl {' '.join(words)}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise InstallationError(f"systemctl {' '.join(words)} failed: {said}; see journalctl on the host")


def exists(unit: str) -> bool:
    """Whether there is such a unit."""
    try:
        return _run("cat", unit).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _run(*words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["systemctl", *words],
        capture_output=True,
        check=False,
        timeout=_PATIENCE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT},
    )
