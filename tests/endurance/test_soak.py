"""Half an hour of everything at once: readers, revisions, traps, and deaths of servers and proxies.

400 MB in one repository, a cache of 60 MB that it shares with a hostile one, both planes. No byte may be
wrong, no read may fail, memory must stay flat, nothing may be left over. What took longest is told.
"""

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.client.administration.talk_socket import ask
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.errors import ClientError
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.planes.erofs_plane import ErofsPlane
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.endurance.publishers import HONEST, LAYER, Honest, Hostile, regularly
from tests.planes.test_erofs_plane import driver_home, stacked
from tests.support.daemons import Daemon, nginx, open_to_daemons, squid
from tests.support.mounts import end, pids_serving, wait_until
from tests.support.project import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.soak]

SECONDS = int(os.environ.get("SOAK", "120"))
_WARM = 0.3
"""The share of the time after which memory must have stopped growing."""
_LONGEST = 90.0
"""Seconds that anything may take: a server that hangs is replaced after 12, and a proxy may be down then."""
_MARK = "SOAK_MARK"
_VARYING = r"[0-9a-f]{40}\S*|\d+"


class Soak:
    """All that runs."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self._random = random.Random(SECONDS)
        self.hostile = Hostile(home, home / "www" / "cvmfs" / HONEST)
        self.honest = Honest(home)
        open_to_daemons(home)
        server = stack.enter_context(nginx(home / "nginx", home / "www"))
        self.proxies: list[Daemon] = [
            stack.enter_context(squid(home / f"squid{number}")) for number in range(2)
        ]
        self.etc = home / "etc"
        self.etc.mkdir()
        values = {
            "CVMFS_SERVER_URL": f"{server.url}/cvmfs/@fqrn@",
            "CVMFS_HTTP_PROXY": ";".join(proxy.url for proxy in self.proxies),
            "CVMFS_KEYS_DIR": str(home / "keys"),
            "CVMFS_CACHE_BASE": str(home / "home" / "cache"),
            "CVMFS_SHARED_CACHE": "yes",
            "CVMFS_QUOTA_LIMIT": "60",
            "CVMFS_CLAIM_OWNERSHIP": "no",
            "CVMFS_TIMEOUT": "3",
            "CVMFS_TIMEOUT_DIRECT": "3",
            "CVMFS_PROXY_RESET_AFTER": "10",
            "CVMFS_USYSLOG": str(home / "log"),
        }
        (self.etc / "default.local").write_text("".join(f"{name}='{it}'\n" for name, it in values.items()))
        driver = stack.enter_context(driver_home(home / "home", self.etc, CVMFS_QUOTA_LIMIT="60"))
        assert isinstance(driver.plane, ErofsPlane)
        fuse = FusePlane(driver.path / "cvmfs", self.etc, driver.overrides)
        layers = [LayerPath(HONEST, LAYER)]
        self.trees = {
            "erofs": stack.enter_context(stacked(driver.plane, layers, home / "erofs")),
            "fuse": stack.enter_context(stacked(fuse, layers, home / "fuse")),
            "moving": self._plain(HONEST, stack),
            "hostile": self._plain(self.hostile.fqrn, stack),
        }
        self.mounts = [driver.path / "cvmfs" / HONEST, self.trees["moving"], self.trees["hostile"]]
        self.deaths = 0

    def _plain(self, fqrn: str, stack: ExitStack) -> Path:
        target = self.home / f"plain-{fqrn}"
        target.mkdir()
        spawn(MountRequest(fqrn, target, self.etc))
        stack.callback(end, target)
        return target

    def trap(self) -> None:
        """A hostile revision, and somebody who wants to see it at once."""
        self.hostile.publish()
        with suppress(ClientError):
            ask(load_settings(self.hostile.fqrn, self.etc).talk_socket, "remount sync")

    def trouble(self) -> None:
        """Something dies, or falls silent for a while."""
        kind = self._random.choice(["kill", "kill", "kill", "stop", "child", "proxy", "frozen proxy"])
        mount = self._random.choice(self.mounts)
        self.deaths += 1
        with suppress(ProcessLookupError, IndexError):
            if kind in {"kill", "stop"}:
                os.kill(pids_serving(mount)[1], signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            elif kind == "child":
                server = pids_serving(mount)[1]
                children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
                for child in children:
                    os.kill(int(child), self._random.choice([signal.SIGKILL, signal.SIGSTOP]))
            else:
                proxy = self._random.choice(self.proxies)
                proxy.kill() if kind == "proxy" else proxy.freeze()
                time.sleep(5)
                proxy.start() if kind == "proxy" else proxy.thaw()

    def memory(self) -> dict[int, int]:
        """Bytes that keepers and servers have in memory, by process."""
        found = {}
        for mount in self.mounts:
            for process in pids_serving(mount):
                with suppress(OSError):
                    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
                    found[process] = pages * os.sysconf("SC_PAGESIZE")
        return found

    def keepers(self) -> list[int]:
        return [pids_serving(mount)[0] for mount in self.mounts]


@contextmanager
def marked() -> Iterator[str]:
    """What is started in the block can be told by its environment."""
    mark = secrets.token_hex(8)
    os.environ[_MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[_MARK]


def processes_marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and f"{_MARK}={mark}".encode() in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def start(tree: Path, manner: str, seed: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "tests.endurance.reader", str(tree), str(SECONDS), str(seed), manner]
    return subprocess.Popen(words, stdout=subprocess.PIPE, cwd=PROJECT, text=True)


def results(readers: dict[str, "subprocess.Popen[str]"]) -> dict[str, Any]:
    found = {}
    for name, reader in readers.items():
        said, _ = reader.communicate(timeout=_LONGEST + 30)
        assert reader.returncode == 0, f"the reader of {name} ended with {reader.returncode}"
        found[name] = json.loads(said)
    return found


@pytest.mark.timeout(SECONDS + 900)
def test_soak(tmp_path: Path) -> None:
    samples: list[tuple[float, dict[int, int]]] = []
    with marked() as mark:
        with ExitStack() as stack:
            soak = Soak(tmp_path, stack)
            keepers = soak.keepers()
            began = time.monotonic()
            readers = {
                f"{name} {number}": start(tree, name if name in {"moving", "hostile"} else "honest", number)
                for name, tree in soak.trees.items()
                for number in range(1 if name == "hostile" else 2)
            }
            with (
                regularly(10, soak.honest.publish) as failed,
                regularly(10, soak.trap) as failed_too,
                regularly(6, soak.trouble) as failed_three,
                regularly(5, lambda: samples.append((time.monotonic() - began, soak.memory()))),
            ):
                time.sleep(SECONDS)
            found = results(readers)
            report(soak, found, samples)
            assert [*failed, *failed_too, *failed_three] == []
            assert {name: result["wrong"] for name, result in found.items() if result["wrong"]} == {}
            assert max(result["slowest"][0] for result in found.values()) < _LONGEST
            assert soak.keepers() == keepers, "a keeper died"
            log = (tmp_path / "log").read_text()
            assert "Traceback" not in log
            assert "it has killed every server" not in log
            newest = soak.trees["moving"] / "moving" / str(soak.honest.number)
            wait_until(newest.exists, 60)
            assert_flat(samples, set(keepers))
        assert mounts_below(tmp_path) == []
        wait_until(lambda: not processes_marked(mark), 30)


def assert_flat(samples: list[tuple[float, dict[int, int]]], keepers: set[int]) -> None:
    """No keeper grows after a while, and no server becomes bigger than those before it."""
    middle = (_WARM + 1) / 2 * SECONDS
    early = [found for when, found in samples if _WARM * SECONDS < when <= middle]
    late = [found for when, found in samples if when > middle]

    def most(samples: list[dict[int, int]], *, of_keepers: bool) -> int:
        return max(size for found in samples for pid, size in found.items() if (pid in keepers) == of_keepers)

    assert most(late, of_keepers=True) < most(early, of_keepers=True) + (4 << 20)
    assert most(late, of_keepers=False) < 1.3 * most(early, of_keepers=False) + (16 << 20)


def report(soak: Soak, found: dict[str, Any], samples: list[tuple[float, dict[int, int]]]) -> None:
    """For people: run with ``-s``."""
    print(f"\n{SECONDS} s, {soak.deaths} deaths, {soak.honest.number} revisions, {soak.hostile.number} traps")
    for name, result in found.items():
        took, what = result["slowest"]
        print(f"{name}: {sum(result['counts'].values())} operations, slowest {took:.1f} s ({what})")
        if result["errors"]:
            print(f"  errors: {result['errors']}")
    sizes = [max(sample.values()) >> 20 for _, sample in samples if sample]
    print(f"largest process in MiB, over time: {sizes[:: max(1, len(sizes) // 20)]}")
    log = soak.home / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    waits = [line for line in lines if "has been waiting" in line]
    kinds = Counter(re.sub(_VARYING, "…", line.partition(") ")[2])[:120] for line in lines)
    print("log:", *(f"{count} × {kind}" for kind, count in kinds.most_common(30)), sep="\n  ")
    print(f"{len(waits)} waits of more than 10 s", *waits[:20], sep="\n  ")
