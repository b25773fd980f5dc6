"""A real image, made from Debian's packages: a root, a Python stack, a layer of oddities, an application.

Owns: how its layers are made (mmdebstrap, apt, GNU tar: nothing of ours), and the OCI layout that they
become (OCI image specification). It is kept below the cache directory and made once. Must not know: what is
done with the image.
"""

import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["COMMAND", "ImageError", "build_image", "push_image"]

COMMAND = ("python3", "/app/main.py")
_SUITE = "bookworm"
_STACK = ("python3-numpy", "python3-pandas", "python3-sympy", "libblas3", "liblapack3")
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # VFS_CAP_REVISION_2, CAP_NET_RAW, effective
_SECOND = 1_000_000_000

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
    """A tool that makes the image failed."""


def build_image(cache: Path, say: Say = lambda _: None) -> Path:
    """The image as an OCI layout (tag ``demo``); ``say`` is told what is going on."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    cache = cache.resolve()
    layout = cache / f"image-{key}"
    if layout.is_dir():
        say("the image is there from an earlier run")
        return layout
    work = cache / "image.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        say("layers 1 and 2: a Debian root, and Python with numpy, pandas and sympy")
        _build_debian(work)
        say("layer 3: deletions, an opaque directory, links, devices, capabilities, odd names")
        _tar_directory(_make_oddities(work / "oddities"), work / "layer-3.tar")
        say("layer 4: the application")
        _tar_directory(_make_application(work / "application"), work / "layer-4.tar")
        say("compressing the layers")
        new = work / "layout"
        _write_layout(new, [work / f"layer-{number}.tar" for number in (1, 2, 3, 4)])
        for old in cache.glob("image-*"):
            shutil.rmtree(old)
        new.rename(layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return layout


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
    snapshot = f'"{sys.executable}" "{__file__}" "$1" "{work}"'
    install = (
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -qq -oDPkg::Chroot-Directory="$1" '
        f"install --no-install-recommends {' '.join(_STACK)}"
    )
    _run(
        "mmdebstrap", "--quiet", "--variant=minbase", "--format=null", "--mode=root",
        f"--customize-hook={snapshot} layer-1.tar",
        f"--customize-hook={install}",
        f"--customize-hook={snapshot} layer-2.tar",
        _SUITE, "-",
        TMPDIR=str(work),
    )  # fmt: skip


def snapshot_layer(root: Path, work: Path, name: str) -> None:
    """Write what has changed below ``root`` since the last call as a layer; runs inside of mmdebstrap."""
    state = work / "state.json"
    before: dict[str, list[int]] = json.loads(state.read_text()) if state.exists() else {}
    after: dict[str, list[int]] = {}
    changed: list[str] = []
    for directory, directories, files in os.walk(root):
        inside = os.path.relpath(directory, root)
        if inside in ("proc", "sys", "dev", "var/cache/apt", "var/lib/apt/lists"):
            directories.clear()
            files.clear()
        for entry in (".", *files, *(d for d in directories if os.path.islink(os.path.join(directory, d)))):
            path = os.path.normpath(os.path.join(inside, entry))
            status = os.lstat(root / path)
            after[path] = [status.st_ino, status.st_ctime_ns, status.st_mode]
            if before.get(path) != after[path]:
                changed.append(path)
    marks = work / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    deleted = [path for path in before if path not in after and (os.path.dirname(path) or ".") in after]
    for path in deleted:
        mark = marks / os.path.dirname(path) / f".wh.{os.path.basename(path)}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    tar = ["tar", "--create", f"--file={work / name}", *_TAR_OPTIONS, "--no-recursion", "--null"]
    tar += [f"--directory={root}", "--verbatim-files-from", "--files-from=-"]
    parents = {str(parent) for path in changed for parent in Path(path).parents}
    names = b"\0".join(os.fsencode(path) for path in sorted(parents.union(changed)))
    # 1 says that a directory changed meanwhile: /proc and /sys always do.
    if subprocess.run(tar, input=names, check=False).returncode not in (0, 1):
        raise ImageError(f"tar could not write {name}")
    if deleted:
        made = [os.path.relpath(path, marks) for path in sorted(marks.rglob(".wh.*"))]
        subprocess.run(
            ["tar", "--append", f"--file={work / name}", *_TAR_OPTIONS, f"--directory={marks}", "--", *made],
            check=True,
        )
    shutil.rmtree(marks)
    state.write_text(json.dumps(after))


_TAR_OPTIONS = (
    "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse",
    "--pax-option=delete=atime,delete=ctime",
)  # fmt: skip


def _tar_directory(directory: Path, target: Path) -> Path:
    _run("tar", "--create", f"--file={target}", *_TAR_OPTIONS, "--sort=name", f"--directory={directory}", ".")
    return target


# Layers 3 and 4


def _make_oddities(root: Path) -> Path:
    """What a layer can hold beyond plain files; only what lies on lower layers is named by its real path."""
    odd = root / "odd"
    for name in (
        "links",
        "other",
        "modes/setgid",
        "modes/sticky",
        "times",
        "deep/" + "/".join("abcdefghij" * 4),
    ):
        (odd / name).mkdir(parents=True)
    # Deletions and replacements of what the layers below have.
    for name in ("etc", "usr/share/base-files", "usr/share/doc", "usr/lib/python3/dist-packages"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/.wh.debian_version").touch()
    (root / "etc/motd").write_text("this file replaces another\n")
    (root / "usr/share/base-files/.wh..wh..opq").touch()
    (root / "usr/share/base-files/only").write_text("the directory is opaque\n")
    (root / "usr/share/.wh.bug").touch()
    (root / "usr/share/doc/.wh.python3-numpy").touch()
    (root / "etc/.wh.skel").touch()
    # Hard links: in a directory, across directories, of a symlink, of a setuid file.
    (odd / "links/one").write_text("three names\n")
    os.link(odd / "links/one", odd / "links/two")
    os.link(odd / "links/one", odd / "other/three")
    os.symlink("one", odd / "links/symlink")
    os.link(odd / "links/symlink", odd / "links/symlink-too", follow_symlinks=False)
    # Modes, owners, capabilities, extended attributes.
    (odd / "modes/setuid").write_bytes(b"\x7fELF nothing")
    os.chown(odd / "modes/setuid", 0, 12)
    (odd / "modes/setuid").chmod(0o6711)
    os.link(odd / "modes/setuid", odd / "other/setuid-too")
    (odd / "modes/setgid").chmod(0o2775)
    (odd / "modes/sticky").chmod(0o1777)
    (odd / "modes/nothing").write_text("nobody may read this\n")
    (odd / "modes/nothing").chmod(0)
    os.chown(odd / "modes/nothing", 65534, 4_000_000_000)
    (odd / "modes/capable").write_bytes(b"\x7fELF nothing either")
    os.setxattr(odd / "modes/capable", "security.capability", _CAPABILITY)
    for target in (odd / "modes/capable", odd / "other"):
        os.setxattr(target, "user.comment", b"an attribute\nof two lines")
        os.setxattr(target, "user.empty", b"")
    # Special files.
    os.mknod(odd / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(odd / "disk", stat.S_IFBLK | 0o640, os.makedev(259, 70_000))
    os.mkfifo(odd / "fifo", 0o600)
    # Names.
    for odd_name in (
        b"with space",
        b"new\nline",
        b"\xff\xfe not UTF-8",
        "ünïcödé ☃".encode(),
        b"x" * 255,
        b"-dash",
        b"#",
    ):
        with open(os.fsencode(odd) + b"/" + odd_name, "wb") as file:
            file.write(b"named " + odd_name)
    os.symlink(b"to \xff nowhere", os.fsencode(odd) + b"/dangling")
    os.symlink("/etc/passwd", odd / "absolute")
    # Holes, sizes, times.
    with (odd / "sparse").open("wb") as file:
        file.truncate(24 << 20)
        file.seek(10 << 20)
        file.write(b"an island in zeros")
    (odd / "empty").touch()
    blocks = (hashlib.sha256(b"%d" % number).digest() for number in range(600_000))
    (odd / "big").write_bytes(b"".join(blocks))
    for name, time in (
        ("now", 1_700_000_000 * _SECOND + 123_456_789),
        ("old", 1),
        ("future", 4_000_000_000 * _SECOND),
    ):
        (odd / "times" / name).touch()
        os.utime(odd / "times" / name, ns=(time, time))
    return root


def _make_application(root: Path) -> Path:
    (root / "app").mkdir(parents=True)
    (root / "app/main.py").write_text(_APPLICATION)
    return root


# The image


def _write_layout(layout: Path, layers: list[Path]) -> None:
    """An OCI image layout with gzip layers, and a configuration of which nothing may get lost."""
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


if __name__ == "__main__":
    snapshot_layer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
