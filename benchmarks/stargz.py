"""The peer for lazy images on containerd: the stargz snapshotter of Debian testing, and eStargz copies.

Owns: compiling it in the root directory of ``make bench``, and converting an image with Debian's ctr-remote.
Must not know: what is measured.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from demo.containerd import OVERLAYFS, ContainerdEngine, Snapshotter
from demo.images import push_image
from demo.installation import Installation

__all__ = ["push_estargz", "stargz", "without_oddities"]

_ODDITIES = 2
"""The demo's layer that ctr-remote cannot convert, because of a sparse file."""
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


def push_estargz(cache: Path, layout: Path, engine: ContainerdEngine, image: str, copy: str) -> None:
    """Push an eStargz copy of an image whose layout is given; it is made once, which takes a minute."""
    kept = cache / f"estargz-{hashlib.sha256((layout / 'index.json').read_bytes()).hexdigest()[:16]}"
    if kept.is_dir():
        push_image(kept, copy)
        return
    engine.ctr("images", "pull", "--plain-http", "--snapshotter", OVERLAYFS.name, image)
    engine.ctr("images", "convert", "--estargz", "--oci", image, copy, program="ctr-remote")
    engine.ctr("images", "push", "--plain-http", copy)
    engine.ctr("images", "rm", "--sync", image, copy)
    new = kept.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{copy}", f"oci:{new}:demo"],
        check=True,
    )
    new.rename(kept)


def without_oddities(layout: Path) -> None:
    """Leave the third layer out of the demo's image, in an OCI layout that is the caller's."""
    index = json.loads((layout / "index.json").read_text())
    manifest = _blob(layout, index["manifests"][0])
    config = _blob(layout, manifest["config"])
    for each in (manifest["layers"], config["history"], config["rootfs"]["diff_ids"]):
        del each[_ODDITIES]
    manifest["config"] |= _store(layout, config)
    index["manifests"][0] |= _store(layout, manifest)
    (layout / "index.json").write_text(json.dumps(index))


def _blob(layout: Path, descriptor: dict[str, Any]) -> Any:
    return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())


def _store(layout: Path, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
