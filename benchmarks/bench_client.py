"""A mounted repository against the same tree on the local disk, in the same run.

docs/performance.md has the measurements and their goals. "Cold" means that the kernel's caches were dropped
for both, "again" that nothing happened in between. Needs root, and nginx as in production.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from benchmarks.memory import memory
from benchmarks.pairs import Figure, Pair, Result
from benchmarks.tree import FQRN, copy_tree, fill_directory, publish_tree
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn

_PORT = 18_127
_BIG = 500 << 20
_BIGGEST = 48_000_000
_MILLION = 1_000_000
_MANY = 100_000
_RANDOM = 1000
_TAR = "tar cf - --exclude=./big -C {} . | cat > /dev/null"
_SMALL = 64 << 10


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir="/var/tmp") as scratch:
        home = Path(scratch)
        tree = copy_tree(home / "tree", biggest=_BIGGEST)
        with (home / "tree" / "big").open("wb") as file:
            for _ in range(_BIG >> 20):
                file.write(os.urandom(1 << 20))
        fill_directory(home / "many", _MANY)
        publish_tree(
            tree.path,
            home / "www" / "cvmfs" / FQRN,
            home / "keys",
            links=_MILLION,
            beside={b"/many": home / "many"},
        )
        os.link(home / "tree" / "big", home / "www" / "big")
        print(f"{tree.entries} entries, {tree.size >> 20} MiB, and one file of {_BIG >> 20} MiB")
        with _nginx(home):
            return _Bench(home).run()


class _Bench:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.local = home / "tree"
        self.mount = home / "mnt"
        self.mount.mkdir()
        self.ours = self.mount / "tree"
        self.caches = 0
        self.results: list[Result] = []

    def run(self) -> list[Result]:
        self.walk("find -ls", "find {} -ls > /dev/null", first=3, again=2)
        self.walk("tar c", _TAR, first=2.2, again=1.5)
        self.on_a_new_mount("tar c, warm client cache on a new mount, cold", _TAR, self.ours, self.local)
        self.many()
        self.at_random()
        self.chunked()
        self.sequential()
        self.mounting()
        self.million()
        return self.results

    def walk(self, what: str, command: str, *, first: float, again: float) -> None:
        """With nothing in the client's cache, and again."""
        with self.mounted(new=True) as keeper:
            ours = self.timed(command, self.ours, cold=True), self.timed(command, self.ours, cold=False)
            peer = self.timed(command, self.local, cold=True), self.timed(command, self.local, cold=False)
            self.note(f"{what}, empty client cache, cold", ours[0], peer[0], first)
            self.note(f"{what}, again", ours[1], peer[1], again)
            self.results.append(
                Figure(
                    f"resident memory, all processes of the mount, after {what}",
                    memory(keeper) / 1e6,
                    "MB",
                    120,
                )
            )

    def on_a_new_mount(
        self, what: str, command: str, ours: Path, peer: Path, *, goal: float | None = None
    ) -> None:
        """With everything in the last client cache, and nothing in the kernel's."""
        with self.mounted(new=False):
            seconds = self.timed(command, ours, cold=True)
            self.note(what, seconds, self.timed(command, peer, cold=True), goal)

    def many(self) -> None:
        """One directory with more files than a client remembers, read in the order of its listing."""
        what = f"a directory of {_MANY} files"
        command = "find {} -type f -print0 | xargs -0 cat > /dev/null"
        ours, peer = self.mount / "many", self.home / "many"
        with self.mounted(new=True):
            times = [
                (self.timed(command, ours, cold=cold), self.timed(command, peer, cold=cold))
                for cold in (True, False)
            ]
        self.note(f"{what}, empty client cache, cold", *times[0])
        self.note(f"{what}, again", *times[1])
        self.on_a_new_mount(f"{what}, cached, on a new mount, cold", command, ours, peer, goal=3)

    def at_random(self) -> None:
        """Random small files: nothing may be fetched that is not read."""
        files = sorted(
            path.relative_to(self.local)
            for path in self.local.rglob("*")
            if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= _SMALL
        )
        chosen = Random(1).sample(files, _RANDOM)
        listing = self.home / "chosen"
        listing.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in chosen))
        command = f"cd {{}} && xargs -0 cat < {listing} > /dev/null"
        with self.mounted(new=True):
            before = self.downloads()
            ours = self.timed(command, self.ours, cold=True)
            fetched = self.downloads() - before
            peer = self.timed(command, self.local, cold=True)
        self.results.append(
            Pair(f"{_RANDOM} files at random, empty client cache, cold", ours, peer, ours / peer)
        )
        self.results.append(Figure("objects fetched for one file at random", fetched / _RANDOM, "", 1.1))

    def downloads(self) -> int:
        return int(os.getxattr(self.mount, "user.ndownload"))

    def chunked(self) -> None:
        """A big chunked file, against fetching the same bytes from the same server."""
        url = f"http://127.0.0.1:{_PORT}/big"
        with self.mounted(new=True):
            ours = self.timed("cat {}/big > /dev/null", self.ours, cold=True)
            peer = self.timed(f"curl -s {url} > /dev/null", self.local, cold=True)
        self.results.append(
            Pair("sequential read, empty client cache, cold (peer: curl)", ours, peer, ours / peer)
        )

    def million(self) -> None:
        with self.mounted(new=True) as keeper:
            subprocess.run(["find", self.mount / "links", "-ls"], stdout=subprocess.DEVNULL, check=True)
            resident = memory(keeper) / 1e6
        self.results.append(
            Figure("resident memory after find -ls in a million entries", resident, "MB", 150)
        )

    def sequential(self) -> None:
        command = "cat {}/big > /dev/null"
        with self.mounted(new=True):
            self.timed(command, self.ours, cold=True)
            pairs = [
                (self.timed(command, self.ours, cold=True), self.timed(command, self.local, cold=True))
                for _ in range(5)
            ]
        ours, peer = (sorted(times)[len(times) // 2] for times in zip(*pairs, strict=True))
        self.note("sequential read, cached file, cold", ours, peer, 1 / 0.9)

    def mounting(self) -> None:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            with self.mounted(new=False):
                times.append(time.perf_counter() - start)
        seconds = sorted(times)[2]
        self.results.append(Figure("mount of a known repository", seconds, "s", 0.15))

    def note(self, what: str, ours: float, peer: float, goal: float | None = None) -> None:
        self.results.append(Pair(what, ours, peer, ours / peer, goal=goal))

    def timed(self, command: str, place: Path, *, cold: bool) -> float:
        if cold:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        start = time.perf_counter()
        subprocess.run(["sh", "-c", command.format(place)], check=True)
        return time.perf_counter() - start

    @contextmanager
    def mounted(self, *, new: bool) -> Iterator[int]:
        """Mount, with a new cache or the last one; yields the keeper's process id."""
        self.caches += new
        etc = self.home / "etc"
        etc.mkdir(exist_ok=True)
        (etc / "default.local").write_text(
            f"CVMFS_SERVER_URL='http://127.0.0.1:{_PORT}/cvmfs/@fqrn@'\nCVMFS_HTTP_PROXY=DIRECT\n"
            f"CVMFS_KEYS_DIR={self.home}/keys\nCVMFS_CACHE_BASE={self.home}/cache{self.caches}\n"
            "CVMFS_QUOTA_LIMIT=20000\n"
        )
        spawn(MountRequest(FQRN, self.mount, etc))
        try:
            yield _keeper_of(self.mount)
        finally:
            while mount_at(self.mount):
                umount(self.mount, UmountFlag.DETACH)
            _wait_until(lambda: _keeper_of(self.mount) == 0)


@contextmanager
def _nginx(home: Path) -> Iterator[None]:
    configuration = home / "nginx.conf"
    places = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"daemon off; pid {home}/nginx.pid; error_log {home}/nginx.log; events {{}}\n"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; {places}\n"
        f"server {{ listen 127.0.0.1:{_PORT}; root {home}/www; }} }}\n"
    )
    home.chmod(0o755)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen([program, "-c", str(configuration)]) as process:
        try:
            time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def _keeper_of(mount: Path) -> int:
    """The process that keeps a mount, 0 if there is none: the parent among those that name it."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = (process / "stat").read_bytes().rpartition(b")")[2].split()[1]
            except OSError:
                continue
            if b"cvmfs_graphdriver.planes.service.keeper" in words and os.fsencode(mount) in words:
                found[int(process.name)] = int(parent)
    return next((pid for pid, parent in found.items() if parent not in found), 0)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
