"""The snapshotter as containerd sees it: a process, a socket, mounts to be made by the client.

Owns: starting and killing the process, its calls, and undoing what it leaves mounted.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from cvmfs_graphdriver.kernel.mount import MountFlag, UmountFlag, mount, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.snapshotter.messages import SERVICE, message
from tests.support.mounts import end

__all__ = ["MountSpec", "SnapshotterProcess", "code_of", "snapshotter"]

_RESPONSES = {
    "Commit": "google.protobuf.Empty",
    "Remove": "google.protobuf.Empty",
    "Cleanup": "google.protobuf.Empty",
}


class MountSpec(NamedTuple):
    """A mount that the client is to make."""

    type: str
    source: str
    options: tuple[str, ...]

    @property
    def lower(self) -> list[str]:
        (names,) = (each for each in self.options if each.startswith("lowerdir="))
        return names.removeprefix("lowerdir=").split(":")


class SnapshotterProcess:
    """A snapshotter with its files below ``directory``."""

    def __init__(
        self, directory: Path, repositories: Sequence[str], etc: Path, plane: str, more: str
    ) -> None:
        self.state = directory / "state"
        self.socket = directory / "snapshotter.sock"
        self.log = directory / "log"
        self.file = directory / "config.toml"
        self.work = directory / "mounted"
        self.work.mkdir()
        names = ", ".join(f'"{name}"' for name in repositories)
        self.file.write_text(
            f'repositories = [{names}]\nstate = "{self.state}"\nsocket = "{self.socket}"\n'
            f'cvmfs_config = "{etc}"\ndata_plane = "{plane}"\nlookup_timeout = 20\n'
            f'log_level = "debug"\n{more}\n'
        )
        self._number = 0
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("cvmfs-graphdriver"),
                    "snapshotter",
                    "serve",
                    "--config",
                    self.file,
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self.socket.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        self._channel.close()
        self.process.send_signal(number)
        self.process.wait(20)

    def call(self, method: str, /, **fields: Any) -> Any:
        kind = method if method in ("Mounts", "Usage", "Cleanup") else f"{method}Snapshot"
        answer = _RESPONSES.get(method, f"{kind}Response")
        invoke = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(answer).FromString,
        )
        return invoke(message(f"{kind}Request")(snapshotter="cvmfs-snapshotter", **fields), timeout=60)

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[MountSpec]:
        return _mounts(self.call("Prepare", key=key, parent=parent, labels=labels or {}))

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[MountSpec]:
        return _mounts(self.call("View", key=key, parent=parent, labels=labels or {}))

    def mounts(self, key: str) -> list[MountSpec]:
        return _mounts(self.call("Mounts", key=key))

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        self.call("Commit", name=name, key=key, labels=labels or {})

    def stat(self, key: str) -> Any:
        return self.call("Stat", key=key).info

    def update(self, key: str, labels: Mapping[str, str], *paths: str) -> Any:
        info = message("Info")(name=key, labels=labels)
        mask = message("google.protobuf.FieldMask")(paths=paths)
        return self.call("Update", info=info, update_mask=mask).info

    def infos(self, *filters: str) -> Any:
        invoke = self._channel.unary_stream(
            f"/{SERVICE}/List",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message("ListSnapshotsResponse").FromString,
        )
        pages = invoke(message("ListSnapshotsRequest")(filters=filters), timeout=60)
        return [info for page in pages for info in page.info]

    def cleanup(self) -> None:
        self.call("Cleanup")

    def remove(self, key: str) -> None:
        self.call("Remove", key=key)

    @contextmanager
    def mounted(self, mounts: Sequence[MountSpec]) -> Iterator[Path]:
        """What containerd does with an answer."""
        (spec,) = mounts
        self._number += 1
        target = self.work / str(self._number)
        target.mkdir()
        if spec.type == "bind":
            assert "rbind" in spec.options
            mount(spec.source, target, None, MountFlag.BIND | MountFlag.RECURSIVE)
            if "ro" in spec.options:
                mount(None, target, None, MountFlag.BIND | MountFlag.REMOUNT | MountFlag.READ_ONLY)
        else:
            _mount_overlay(spec, target)
        try:
            yield target
        finally:
            umount(target, UmountFlag.DETACH)

    def unmount_everything(self) -> None:
        """As a reboot does."""
        for each in reversed(mounts_below(self.file.parent)):
            target = Path(os.fsdecode(each.mount_point))
            if target.parent.name == "cvmfs":
                end(target)
            else:
                umount(target, UmountFlag.DETACH | UmountFlag.NOFOLLOW)

    def directories(self) -> list[str]:
        """What is on this disk for snapshots."""
        return sorted(os.listdir(self.state / "snapshots"))

    def standing(self) -> list[str]:
        """The mount points of lazy layers."""
        return sorted(name for kind in ("lower", "merged") for name in os.listdir(self.state / kind))


def _mount_overlay(spec: MountSpec, target: Path) -> None:
    """As containerd does: with long options, from within the directory common to all lower ones."""
    options = ",".join(spec.options)
    if len(options) < 4096 - 512:
        mount(spec.source, target, spec.type, data=options.encode())
        return
    common = Path(os.path.commonpath(spec.lower))
    names = ":".join(str(Path(each).relative_to(common)) for each in spec.lower)
    kept = [each for each in spec.options if not each.startswith("lowerdir=")]
    code = (
        "import sys, os; from cvmfs_graphdriver.kernel.mount import mount; os.chdir(sys.argv[1]); "
        "mount('overlay', sys.argv[2], 'overlay', data=sys.argv[3].encode())"
    )
    data = ",".join([*kept, f"lowerdir={names}"])
    subprocess.run([sys.executable, "-c", code, common, target, data], check=True)


def _mounts(answer: Any) -> list[MountSpec]:
    return [MountSpec(each.type, each.source, tuple(each.options)) for each in answer.mounts]


@contextmanager
def code_of(code: str) -> Iterator[None]:
    """The block must end with this gRPC status."""
    with pytest.raises(grpc.RpcError) as failed:
        yield
    assert failed.value.code().name == code, failed.value


@contextmanager
def snapshotter(
    directory: Path,
    repositories: Sequence[str] = (),
    etc: Path = Path("/etc/cvmfs"),
    plane: str = "fuse",
    more: str = "",
) -> Iterator[SnapshotterProcess]:
    """A running snapshotter; ``more`` are further lines of its configuration."""
    process = SnapshotterProcess(directory, repositories, etc, plane, more)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.stop()
        process.unmount_everything()
