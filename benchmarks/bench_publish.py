"""Publishing a layer and making an image thin, against tools that compress, copy and unpack the same bytes.

Repositories are made on a new ext4: after many deletions it is several times as slow at allocating inodes,
which would measure what happened before. Needs root.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.memory import peak_memory
from benchmarks.pairs import Figure, Pair, Result, measure
from benchmarks.tree import FQRN, pack_tree
from demo.daemons import end_on_signals, registry
from demo.disks import loop_disk
from demo.images import push_image, write_layout

_DISK = 12 << 30
_OURS = (sys.executable, "-c", "from cvmfs_graphdriver.cli.main import main; main()", "repo")
_DOCKER2CVMFS = (sys.executable, "-c", "from cvmfs_graphdriver.cli.docker2cvmfs import main; main()")


def run() -> list[Result]:
    with (
        tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir="/var/tmp") as scratch,
        end_on_signals(),
        loop_disk(Path(scratch, "disk"), _DISK) as disk,
    ):
        bench = _Bench(Path(scratch), disk)
        return [*bench.ingest(), *bench.convert()]


class _Bench:
    def __init__(self, home: Path, disk: Path) -> None:
        self.home = home
        self.disk = disk
        self.tar = home / "layer.tar"
        tree = pack_tree(self.tar)
        print(f"a layer of {tree.entries} entries, {self.tar.stat().st_size / 1e9:.2f} GB")

    def ingest(self) -> list[Result]:
        empty = iter([self.create(self.disk / f"ingest{number}") for number in range(4)])
        pair = measure(
            "`repo ingest` of the layer into an empty repository, against `pigz -6 -p 2`",
            lambda: self.ingest_into(next(empty)),
            lambda: _run("sh", "-c", 'pigz -6 -p 2 -c "$0" > /dev/null', self.tar),
            runs=3,
            goal=0.333,
        )
        peak = 0

        def watched(pid: int) -> None:
            nonlocal peak
            peak = peak_memory(pid)

        self.ingest_into(next(empty), watched)
        return [pair, Figure("peak memory meanwhile, all processes", peak / 1e6, "MB", 400)]

    def ingest_into(self, home: Path, watch: Callable[[int], None] | None = None) -> None:
        command = [*_OURS, "ingest", *_where(home), FQRN, os.fspath(self.tar), "/layers/one"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            if watch is not None:
                watch(process.pid)
        if process.returncode != 0:
            raise SystemExit(f"repo ingest ended with {process.returncode}")

    def create(self, home: Path) -> Path:
        _run(*_OURS, "create", *_where(home), FQRN)
        return home

    def convert(self) -> list[Result]:
        small = self.home / "small.tar"
        _run("tar", "--create", "--file", small, "--directory", Path(__file__).parent, ".")
        base, derived = self.home / "base", self.home / "derived"
        shutil.copy(self.tar, self.home / "again.tar")
        write_layout(base, [self.tar])
        shutil.copy(small, self.home / "small-again.tar")
        write_layout(derived, [self.home / "again.tar", small])
        with registry(self.home) as address:
            for layout, name in ((base, "base"), (derived, "derived")):
                push_image(layout, f"{address}/{name}:1")
            self.create(self.disk / "convert")
            first = _time(lambda: self.make_thin(address, "base"))
            again = _time(lambda: self.make_thin(address, "base"))
            shared = _time(lambda: self.make_thin(address, "derived"))
            peer = _time(lambda: self.copy_and_unpack(address))
        return [
            Pair(
                "image in a registry to signed thin image, against `skopeo copy` and `umoci unpack`",
                first,
                peer,
                first / peer,
                goal=1.5,
            ),
            Pair("the same image again, against the first time", again, first, again / first, goal=0.1),
            Pair(
                "an image with one small layer more, against the first time",
                shared,
                first,
                shared / first,
                goal=0.1,
            ),
        ]

    def make_thin(self, address: str, name: str) -> None:
        _run(
            *_DOCKER2CVMFS,
            "make-thin",
            *_where(self.disk / "convert"),
            *("--image", f"{address}/{name}:1", "--output", f"{address}/{name}:thin", "--repository", FQRN),
        )

    def copy_and_unpack(self, address: str) -> None:
        layout = self.disk / "copied"
        _run(
            "skopeo",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            f"docker://{address}/base:1",
            f"oci:{layout}:1",
        )
        _run("umoci", "unpack", "--image", f"{layout}:1", self.disk / "unpacked")


def _where(home: Path) -> list[str]:
    return ["--storage", f"{home}/srv", "--keys", f"{home}/keys"]


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [os.fspath(word) for word in command], check=False, capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr.decode('utf-8', 'replace')[-2000:]}")


def _time(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
