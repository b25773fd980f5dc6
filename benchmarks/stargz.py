"""The peer for lazy images on containerd: the stargz snapshotter of Debian testing, and eStargz copies.

Owns: compiling it in the root directory of ``make bench``, and converting an image with Debian's ctr-remote.
Must not know: what is measured.
"""

import os
import shutil
import subprocess
from pathlib import Path

from demo.containerd import ContainerdEngine, Snapshotter
from demo.installation import Installation

__all__ = ["make_estargz", "stargz"]

_SOURCE = Path(__file__).with_name("stargz.go")
_GO = (
    "GO111MODULE=off",
    "GOPATH=/usr/share/gocode",
    "CGO_ENABLED=0",
    "GOCACHE=/var/cache/go-build",
    "HOME=/root",
)


def stargz(scratch: Path, installation: Installation) -> Snapshotter:
    """Compile it; the first time takes a minute."""
    program = scratch / "stargz"
    shutil.copy(_SOURCE, scratch)
    subprocess.run(
        [
            *(*installation.command("/usr/bin/env"), *_GO),
            *("go", "build", "-o", program, scratch / _SOURCE.name),
        ],
        check=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )

    def command(directory: Path, socket: Path) -> list[str]:
        return [str(program), str(directory / "stargz"), str(socket)]

    return Snapshotter("stargz", command, inside=True)


def make_estargz(engine: ContainerdEngine, image: str, copy: str) -> None:
    """Put an eStargz copy of an image into its registry."""
    engine.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", image)
    engine.ctr("images", "convert", "--estargz", "--oci", image, copy, program="ctr-remote")
    engine.ctr("images", "push", "--plain-http", copy)
    engine.ctr("images", "rm", "--sync", image, copy)
