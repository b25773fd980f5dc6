"""Repositories mounted the way users mount them: keeper, server, kernel."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.support.fixtures import Server, UnpackedRepository
from tests.support.project import require_fixtures

__all__ = ["comparable", "end", "listing", "mounted", "parents_serving", "pids_serving", "wait_until"]


@contextmanager
def mounted(
    repository: UnpackedRepository, server: Server, directory: Path, **options: Any
) -> Iterator[Path]:
    """Mount a fixture below ``directory``; ``parameters`` among the options are configuration parameters."""
    parameters: dict[str, str] = options.pop("parameters", {})
    repository.settings(server.url, directory, **parameters)
    target = directory / "mnt"
    target.mkdir(exist_ok=True)
    spawn(MountRequest(repository.fqrn, target, directory / "etc", **options))
    try:
        yield target
    finally:
        end(target)


def end(target: Path) -> None:
    """Unmount what is mounted, and end who served it.

    A mount name space that somebody else has made meanwhile may keep a mount alive that is gone here.
    """
    while mount_at(target):
        umount(target, UmountFlag.DETACH)
    deadline = time.monotonic() + 2
    while left := pids_serving(target):
        if time.monotonic() > deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def pids_serving(target: Path) -> list[int]:
    """The processes that belong to a mount: its keeper, then its server."""
    parents = parents_serving(target)
    return sorted(parents, key=lambda pid: parents[pid] in parents)


def parents_serving(target: Path) -> dict[int, int]:
    """The processes that belong to a mount, and to those that were at the same place, with their parents."""
    parents = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            parent = (process / "stat").read_bytes().rpartition(b")")[2].split()[1]
        except OSError:
            continue
        if b"cvmfs_graphdriver.planes.service.keeper" in words and os.fsencode(target) in words:
            parents[int(process.name)] = int(parent)
    return parents


def wait_until(condition: Any, seconds: float = 10) -> None:
    """Wait for something that another process will do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def listing(target: Path) -> dict[str, Any]:
    """What the fixtures' own tool sees in a mount; it runs as a process of its own."""
    command = [sys.executable, str(require_fixtures() / "listing.py"), str(target)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def comparable(listed: dict[str, Any]) -> dict[Any, Any]:
    """A listing without what tells of the client: magic attributes, and its name."""
    result: dict[Any, Any] = {"statvfs": listed["statvfs"], "lookups": listed["lookups"]}
    for kind in ("entries", "hidden_entries"):
        for entry in listed.get(kind, ()):
            name = (kind, entry["path"] if entry["path"] is not None else entry["path_hex"])
            result[name] = {key: value for key, value in entry.items() if key != "magic"}
    return result
