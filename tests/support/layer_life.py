"""The life of a layer, whoever leads it: a base, a script that changes it, and all that can be asked of that.

The same script runs in a container of Docker's, or in the directory that the plugin's ``Get`` gives; the
same questions are answered by Docker's commands, or by the protocol's calls.
"""

import hashlib
import io
import itertools
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.daemons import DockerEngine
from tests.support.plugin_process import Plugin
from tests.support.tars import tar_of

__all__ = ["LOOK", "Life", "LifeInDocker", "LifeInProtocol", "Outcome", "base_layer"]

APPLETS = (
    *("sh", "cat", "rm", "rmdir", "mv", "cp", "ln", "mkdir", "mkfifo", "touch", "stat", "chmod", "chown"),
    *("find", "test", "sort", "grep", "md5sum", "readlink", "xargs", "ls", "mknod"),
)
LOOK = (
    "find /t | sort | while read -r name; do stat -c '%N %f %u %g %t %T' \"$name\"; "
    'if test -f "$name" && ! test -L "$name"; then stat -c "%s %h" "$name"; md5sum < "$name"; fi; done'
)
"""All that is in /t: types, modes, owners, sizes, links, contents."""
_KINDS = "CAD"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: ``layer`` are the members of its tar stream, in their order."""

    said: str
    changes: tuple[str, ...]
    size: int
    layer: tuple[tuple[object, ...], ...]
    seen: str


class Life(Protocol):
    """One way to lead it."""

    def lead(self, name: str, *scripts: str) -> list[Outcome]:
        """Run the scripts, each above what the one before it left; ``name`` is unique."""


def base_layer() -> bytes:
    """A static shell, and the tree ``/t`` that scripts change."""

    def special(name: str, **fields: object) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mtime = 1_700_000_000
        for field, value in fields.items():
            setattr(info, field, value)
        return info

    shell = shutil.which("busybox")
    assert shell, "busybox-static is missing: run scripts/install-packages"
    capability = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
    return tar_of(
        ("bin", None), ("bin/busybox", Path(shell).read_bytes()),
        *(special(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox") for name in APPLETS),
        ("t", None), ("t/f", b"file\n"), ("t/big", b"0123456789" * 20_000),
        ("t/d", None), ("t/d/one", b"1\n"), ("t/d/two", b"2\n"), ("t/d/sub", None),
        ("t/d/sub/deep", b"deep\n"),
        ("t/linked", b"linked\n"), special("t/link", mode=0o755, type=tarfile.LNKTYPE, linkname="t/linked"),
        special("t/symlink", type=tarfile.SYMTYPE, linkname="d"),
        special("t/able", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability}),
        special("t/suid", mode=0o4755, uid=12, gid=34),
    )  # fmt: skip


def _members(layer: bytes) -> tuple[tuple[object, ...], ...]:
    """What is in a layer, but for times, and the types that some Dockers write into modes."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else info.linkname
            attributes = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY.xattr.")}
            found.append((
                *(info.name, info.type, info.mode & 0o7777, info.uid, info.gid, content),
                *(info.devmajor, info.devminor),
                tuple(sorted(attributes.items())),
            ))  # fmt: skip
    return tuple(found)


class LifeInDocker:
    """Through Docker's commands."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        engine.docker("import", "-", "life:base", stdin=base_layer())

    def lead(self, name: str, *scripts: str) -> list[Outcome]:
        docker, image = self._engine.docker, "life:base"
        made: list[tuple[str, tuple[str, ...], int, str, str]] = []
        for number, script in enumerate(scripts):
            box = f"{name}-{number}"
            said = docker("run", "--name", box, "--network", "none", image, "sh", "-ec", script)
            changes = tuple(sorted(docker("diff", box).splitlines()))
            size = json.loads(docker("inspect", "--size", box))[0]["SizeRw"]
            image = f"life:{box}"
            docker("commit", box, image)
            seen = docker("run", "--rm", "--network", "none", image, "sh", "-ec", LOOK)
            made.append((said, changes, size, image, seen))
        found, depth = [], 1
        for said, changes, size, committed, seen in made:
            layers = self._layers(committed)
            found.append(
                Outcome(said, changes, size, _members(layers[-1]) if len(layers) > depth else (), seen)
            )
            depth = len(layers)  # Docker adds no layer where nothing changed
        docker("rm", *(f"{name}-{number}" for number in range(len(scripts))))
        docker("rmi", *(image for _, _, _, image, _ in made))
        return found

    def _layers(self, image: str) -> list[bytes]:
        with tarfile.open(fileobj=io.BytesIO(self._engine.docker_bytes("save", image))) as tar:
            (manifest,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            return [tar.extractfile(name).read() for name in manifest["Layers"]]  # type: ignore[union-attr]


class LifeInProtocol:
    """Through the plugin's socket, in the order in which Docker calls it."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._names = (f"layer{number}" for number in itertools.count())
        plugin.call("GraphDriver.Create", ID="base")
        plugin.apply("base", base_layer())

    def lead(self, name: str, *scripts: str) -> list[Outcome]:
        call, parent = self._plugin.call, "base"
        found, made = [], []
        for number, script in enumerate(scripts):
            box, layer = f"{name}-{number}", f"{name}-{number}-committed"
            made += [layer, box]
            call("GraphDriver.CreateReadWrite", ID=box, Parent=parent)
            said = self._run(box, script)
            changes = call("GraphDriver.Changes", ID=box, Parent=parent)["Changes"]
            size = call("GraphDriver.DiffSize", ID=box, Parent=parent)["Size"]
            stream = self._plugin.diff(box, parent)
            call("GraphDriver.Create", ID=layer, Parent=parent)
            self._plugin.apply(layer, stream, parent)
            again = self._plugin.diff(layer, parent)
            assert _members(again) == _members(stream)
            looking = f"{name}-{number}-looking"
            call("GraphDriver.CreateReadWrite", ID=looking, Parent=layer)
            seen = self._run(looking, LOOK)
            call("GraphDriver.Remove", ID=looking)
            lines = tuple(sorted(f"{_KINDS[change['Kind']]} {change['Path']}" for change in changes))
            found.append(Outcome(said, lines, size, _members(stream), seen))
            parent = layer
        for each in reversed(made):
            call("GraphDriver.Remove", ID=each)
            assert not call("GraphDriver.Exists", ID=each)["Exists"]
        return found

    def _run(self, identity: str, script: str) -> str:
        root = self._plugin.call("GraphDriver.Get", ID=identity)["Dir"]
        try:
            done = subprocess.run(
                ["/usr/sbin/chroot", root, "/bin/sh", "-ec", script], capture_output=True, check=True
            )
        finally:
            self._plugin.call("GraphDriver.Put", ID=identity)
        return done.stdout.decode().strip()
