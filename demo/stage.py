"""The set-up of demo and tests: registry, image, repository, its server, a node's configuration.

Owns: how these are put together in a scratch directory. Each part is used as an administrator would use
it: docker2cvmfs and the plugin are the real programs. Must not know: what the set-up is used for.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.server import Served, serve
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from demo.daemons import DaemonError, registry

__all__ = ["FQRN", "Conversion", "Stage", "stage"]

FQRN = "images.example.org"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What docker2cvmfs reports."""

    thin: str
    account: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything but Docker: ``registry`` is host:port, ``etc`` a node's /etc/cvmfs."""

    scratch: Path
    registry: str
    storage: Path
    keys: Path
    etc: Path
    served: Served

    def convert(self, image: str, thin: str) -> Conversion:
        """Run ``docker2cvmfs make-thin``; its progress goes to the terminal. Raises DaemonError."""
        account = json.loads(self._docker2cvmfs("make-thin", "--json", "--image", image, "--output", thin))
        return Conversion(account["thin_image"], account)

    def publish(self, *images: str) -> None:
        """Run ``docker2cvmfs publish``; its progress goes to the terminal. Raises DaemonError."""
        self._docker2cvmfs("publish", *images)

    def _docker2cvmfs(self, command: str, *words: str) -> bytes:
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from cvmfs_graphdriver.cli.docker2cvmfs import main; main()"),
                *(command, *words, "--repository", FQRN),
                *("--storage", str(self.storage), "--keys", str(self.keys)),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(self.scratch)},
        )
        if done.returncode != 0:
            raise DaemonError(f"docker2cvmfs {command} ended with status {done.returncode}")
        return done.stdout

    def fetched(self) -> tuple[int, int]:
        """Files and bytes that clients have fetched so far, including the repository's own files."""
        return self.served.requests, self.served.bytes


@contextlib.contextmanager
def stage(scratch: Path) -> Iterator[Stage]:
    """Prepare everything below ``scratch``."""
    storage, keys, etc = scratch / "srv/cvmfs" / FQRN, scratch / "keys", scratch / "etc"
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(registry(scratch))
        storage.parent.mkdir(parents=True)
        create_repository(FQRN, LocalStorage.create(storage), keys)
        served = stack.enter_context(serve(storage.parent.parent))
        _configure(etc, served.url, keys)
        yield Stage(scratch, address, storage, keys, etc, served)


def _configure(etc: Path, url: str, keys: Path) -> None:
    """A node's configuration, as an administrator writes it."""
    (etc / "keys").mkdir(parents=True)
    public = f"{FQRN}.pub"
    (etc / "keys" / public).write_bytes((keys / public).read_bytes())
    (etc / "config.d").mkdir()
    (etc / "default.local").write_text("CVMFS_HTTP_PROXY=DIRECT\n")
    (etc / "config.d" / f"{FQRN}.conf").write_text(
        f"CVMFS_SERVER_URL={url}/cvmfs/@fqrn@\nCVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{public}\n"
    )
