"""Both data planes against overlay2 over the unpacked layer, in the same run.

Each is an overlay mount: over the local tree, over the FUSE plane's directory, over the EROFS plane's
image. "Cold" means that the kernel's caches were dropped, while every file is in the client's cache; "first"
that none is. Needs root, and a kernel on which the EROFS plane works.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.pairs import Pair, Result
from benchmarks.tree import FQRN, copy_tree, publish_tree
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.planes.choice import Choice, choose_plane
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from cvmfs_graphdriver.publisher.server import serve

_ENTRIES = 10_000
_RUNS = 3
_LAYER = LayerPath(FQRN, b"/tree")
_FIND = "find {} -ls > /dev/null"
_TAR = "tar cf - -C {} . | cat > /dev/null"
_OPEN = "find {} -type f | sort | head -n 5000 | xargs cat > /dev/null"
_MODULES = (
    "argparse, asyncio, concurrent.futures, csv, ctypes, decimal, difflib, email.mime.text, fractions, "
    "http.server, imaplib, inspect, logging.config, mailbox, multiprocessing.pool, optparse, pdb, plistlib, "
    "pickletools, pydoc, smtplib, sqlite3, ssl, statistics, tarfile, unittest.mock, urllib.request, uuid, "
    "xml.dom.minidom, xmlrpc.server, zipfile"
)
_IMPORTS = (
    f"{sys.executable} -I -S -X pycache_prefix=/nonexistent -c "
    f'\'import sys; sys.path[:] = ["{{}}/python", "{{}}/python/lib-dynload"]; import {_MODULES}\''
)


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir="/var/tmp") as scratch:
        home = Path(scratch)
        tree = copy_tree(home / "tree", entries=_ENTRIES)
        shutil.copytree(sysconfig.get_path("stdlib"), home / "tree/python", ignore=_without_packages)
        publish_tree(home / "tree", home / "www/cvmfs" / FQRN, home / "keys")
        print(f"{tree.entries} entries, {tree.size >> 20} MiB, and Python's library")
        with serve(home / "www") as served:
            (home / "etc").mkdir()
            (home / "etc/default.local").write_text(
                f"CVMFS_SERVER_URL='{served.url}/cvmfs/@fqrn@'\nCVMFS_HTTP_PROXY=DIRECT\n"
                f"CVMFS_KEYS_DIR={home}/keys\nCVMFS_CLAIM_OWNERSHIP=no\nCVMFS_QUOTA_LIMIT=20000\n"
            )
            return _measure(home)


def _without_packages(directory: str, names: list[str]) -> set[str]:
    del directory
    return {"site-packages", "dist-packages", "test", "__pycache__"} & set(names)


def _measure(home: Path) -> list[Result]:
    with (
        _mounted(home / "overlay2", Lower([home / "tree"])) as peer,
        _plane(home, Choice.EROFS) as erofs,
        _plane(home, Choice.FUSE) as fuse,
    ):
        ways = {"erofs": erofs, "fuse": fuse}
        results: list[Result] = []
        for plane, place in ways.items():
            ours, theirs = _timed(_TAR, place, cold=True), _timed(_TAR, peer, cold=True)
            results.append(Pair(f"{plane}: first tar", ours, theirs, ours / theirs))
        for what, command, cold in (
            ("cold find -ls", _FIND, True),
            ("cold open and read", _OPEN, True),
            ("again open and read", _OPEN, False),
            ("cold tar", _TAR, True),
            ("cold Python imports", _IMPORTS, True),
        ):
            times = [
                {name: _timed(command, place, cold=cold) for name, place in (*ways.items(), ("", peer))}
                for _ in range(_RUNS)
            ]
            results += [
                Pair(
                    f"{plane}: {what}",
                    median(each[plane] for each in times),
                    median(each[""] for each in times),
                    median(each[plane] / each[""] for each in times),
                    _RUNS,
                )
                for plane in ways
            ]
        return results


@contextmanager
def _plane(home: Path, choice: Choice) -> Iterator[Path]:
    """A tree on one of the planes, with a cache of its own."""
    place = home / choice
    place.mkdir()
    plane = choose_plane(choice, place, home / "etc", {"CVMFS_CACHE_BASE": str(place / "cache")})
    try:
        with plane.lower([_LAYER]) as lower, _mounted(place / "stack", lower) as merged:
            yield merged
    finally:
        for mount in reversed(mounts_below(place)):
            umount(mount.mount_point, UmountFlag.DETACH)
        deadline = time.monotonic() + 30
        while list(place.glob("cache/*/janitor.*")) and time.monotonic() < deadline:
            time.sleep(0.05)  # the server leaves its cache in order


@contextmanager
def _mounted(place: Path, lower: Lower) -> Iterator[Path]:
    upper, work, merged = (place / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir(parents=True)
    mount_overlay(lower.layers, merged, upper=upper, work=work, data=lower.data, options=dict(lower.options))
    try:
        yield merged
    finally:
        umount(merged, UmountFlag.DETACH)


def _timed(command: str, place: Path, *, cold: bool) -> float:
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    start = time.perf_counter()
    subprocess.run(["sh", "-c", command.replace("{}", str(place))], check=True)
    return time.perf_counter() - start
