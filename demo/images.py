"""A real image, built from Debian packages: a root, a Python stack, a layer of oddities, an application.

Owns: how its layers are built (with mmdebstrap, apt and GNU tar, not with our own code), and the OCI layout
that they become (OCI image specification). It is built once and kept in the cache directory. Must not know:
what is done with the image.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from demo.containment import contained
from demo.oddities import make_oddities
from demo.snapshot import TAR_OPTIONS

__all__ = ["COMMAND", "ImageError", "build_image", "push_image", "write_layout"]

COMMAND = ("python3", "/app/main.py")
_HERE = Path(__file__).resolve().parent
_SOURCES = ("images.py", "oddities.py", "snapshot.py")
_SUITE = "bookworm"
_STACK = ("python3-numpy", "python3-pandas", "python3-sympy", "libblas3", "liblapack3")

_APPLICATION = '''\
"""A small analysis: part of the stack, and an answer that is always the same."""
import json
import platform
import sqlite3

import mpmath
from dateutil import parser

mpmath.mp.dps = 50
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE zeros (number INTEGER, height TEXT)")
for number in range(1, 4):
    database.execute("INSERT INTO zeros VALUES (?, ?)", (number, str(mpmath.zetazero(number).imag)))
print(json.dumps({
    "python": platform.python_version(),
    "mpmath": mpmath.__version__,
    "pi": str(mpmath.pi),
    "zeros": database.execute("SELECT number, height FROM zeros ORDER BY number").fetchall(),
    "day": parser.parse("1859-11-01").strftime("%A"),
    "motd": open("/etc/motd").read(),
}, sort_keys=True))
'''

Say = Callable[[str], None]


class ImageError(Exception):
    """A tool that builds the image failed."""


def build_image(cache: Path, say: Say = lambda _: None) -> Path:
    """The image as an OCI layout (tag ``demo``); ``say`` receives progress messages."""
    key = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs may need the image at once
        layout = cache / f"image-{key}"
        if layout.is_dir():
            say("the image exists from an earlier run")
        else:
            _make_image(cache, layout, say)
        return layout


def _make_image(cache: Path, layout: Path, say: Say) -> None:
    work = cache / "image.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        say("layers 1 and 2: a Debian root, and Python with numpy, pandas and sympy")
        _build_debian(work)
        say("layer 3: deletions, an opaque directory, links, devices, capabilities, odd names")
        _tar_directory(make_oddities(work / "oddities"), work / "layer-3.tar")
        say("layer 4: the application")
        _tar_directory(_make_application(work / "application"), work / "layer-4.tar")
        say("compressing the layers")
        new = work / "layout"
        write_layout(new, [work / f"layer-{number}.tar" for number in (1, 2, 3, 4)])
        for old in cache.glob("image-*"):
            shutil.rmtree(old)
        new.rename(layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def push_image(layout: Path, reference: str) -> None:
    """Push the image to ``host:port/name:tag`` on loopback."""
    _run(
        "skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:demo", f"docker://{reference}"
    )


def _run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        [os.fspath(word) for word in command],
        check=False, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode != 0:
        complaint = done.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise ImageError(f"{' '.join(map(str, command))[:200]} failed:\n{complaint}")


# Layers 1 and 2


def _build_debian(work: Path) -> None:
    """One run of mmdebstrap; what is there before and after the stack is installed becomes a layer each."""
    snapshot = f'"{sys.executable}" "{_HERE / "snapshot.py"}" "$1" "{work}"'
    install = (
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -qq -oDPkg::Chroot-Directory="$1" '
        f"install --no-install-recommends {' '.join(_STACK)}"
    )
    _run(
        *contained("mmdebstrap", "--quiet"), "--variant=minbase", "--format=null", "--mode=root",
        f"--customize-hook={snapshot} layer-1.tar",
        f"--customize-hook={install}",
        f"--customize-hook={snapshot} layer-2.tar",
        _SUITE, "-",
        TMPDIR=str(work),
    )  # fmt: skip


# Layers 3 and 4


def _tar_directory(directory: Path, target: Path) -> Path:
    _run("tar", "--create", f"--file={target}", *TAR_OPTIONS, "--sort=name", f"--directory={directory}", ".")
    return target


def _make_application(root: Path) -> Path:
    (root / "app").mkdir(parents=True)
    (root / "app/main.py").write_text(_APPLICATION)
    return root


# The image


def write_layout(layout: Path, layers: list[Path]) -> None:
    """An OCI image layout (tag ``demo``) of tar files, which are compressed, and a configuration."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    descriptors, diff_ids = [], []
    for layer in layers:
        with layer.open("rb") as file:
            diff_ids.append("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
        _run("pigz", "--no-name", "-6", layer)
        packed = layer.with_name(layer.name + ".gz")
        with packed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        descriptors.append({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": f"sha256:{digest}",
            "size": packed.stat().st_size,
        })  # fmt: skip
        packed.rename(blobs / digest)
    config = {
        "created": "2024-01-01T00:00:00Z",
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEMO=kept"],
            "Cmd": list(COMMAND),
            "WorkingDir": "/app",
            "Labels": {"org.example.demo": "kept"},
            "ExposedPorts": {"8080/tcp": {}},
            "StopSignal": "SIGINT",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": f"layer {number}"} for number in range(1, len(layers) + 1)],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **blob(json.dumps(config).encode()),
        },
        "layers": descriptors,
    }
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                **blob(json.dumps(manifest).encode()),
                "annotations": {"org.opencontainers.image.ref.name": "demo"},
            }
        ],
    }
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
