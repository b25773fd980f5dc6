"""Where Docker is installed: on this system, or in a root directory of its own.

Owns: how a program of that Docker is started in its root, with this system's devices, control groups, sockets
and scratch directories at the same paths. The root becomes that of the mount namespace (pivot_root(2)), since
runc cannot enter a container's root from a changed one (chroot(2)). Must not know: what is started.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "Installation"]

_ENTER = """
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
root="$1"
shift
mount --bind "$root" "$root"
for shared in /proc /sys /dev /run /tmp /var/tmp; do mount --rbind "$shared" "$root$shared"; done
cd "$root"
pivot_root . .
umount --lazy .
cd /
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """A Docker installed below ``root``; None means this system's own."""

    root: Path | None = None

    def client(self) -> list[str]:
        """The words before those of a ``docker`` command line."""
        return self.command("/usr/bin/docker")

    def command(self, program: str) -> list[str]:
        """The words before the options of a program of this installation."""
        if self.root is None:
            return [program]
        return ["unshare", "--mount", "--propagation", "slave", *self.program(program)]

    def daemon(self, *prepared: str) -> list[str]:
        """The words before dockerd's options, in a mount namespace of its own, after ``prepared``."""
        return self.program(*prepared, "/usr/sbin/dockerd")

    def version(self, program: str) -> tuple[int, int]:
        """The major and the minor version that a program tells."""
        told = subprocess.run([*self.command(program), "--version"], capture_output=True, check=True)
        match = re.search(rb"(\d+)\.(\d+)", told.stdout)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def program(self, *words: str) -> list[str]:
        """The same for any program that is already in a mount namespace of its own."""
        return [*([] if self.root is None else self._entering(self.root)), *words]

    @staticmethod
    def _entering(root: Path) -> list[str]:
        return ["sh", "-euc", _ENTER, "sh", str(root.resolve())]


HERE = Installation()
