"""kill -9 at any instant of pulls, runs, builds and removals: to the snapshotter, a repository's keeper or
server, containerd, dockerd.

``KILLS`` says how many times each, on each plane. Containers that run go on, from the same process and with
files that nobody has read before; what was complete works; once everything has been removed, no directory,
mount, row or process is left.
"""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from demo.installation import Installation
from demo.stage import stage
from tests.support.containerd import NAME
from tests.support.images import TestLayer
from tests.support.killing import going_on
from tests.support.lazy_site import LazySite, base_layer, lazy_site, push_layers
from tests.support.mounts import parents_serving, wait_until
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.timeout(0)]

KILLS = int(os.environ.get("KILLS", "10"))
_FILES = 200
_PATIENCE = 60.0
_DATA = [{f"d{number}/f{n}": os.urandom(3000) for n in range(_FILES)} for number in range(2)]


class Work:
    """Images, two containers that live long, and what both engines are busy with, successfully or not."""

    def __init__(self, site: LazySite) -> None:
        self.site, self.docker, self.engine = site, site.docker, site.engine
        layers = [TestLayer(tar_of({f"d{number}": None, **files})) for number, files in enumerate(_DATA)]
        self.lazy = push_layers(site.stage, "lazy", [base_layer(), *layers], lazy=True)
        own = TestLayer(tar_of({"motd": b"half\n", "own": os.urandom(100_000)}))
        self.half = push_layers(site.stage, "half", [base_layer(), *layers, own], lazy=False)
        self.plain = push_layers(site.stage, "plain", [base_layer("plain\n"), *layers], lazy=False)
        self.built, self.committed, self.kept = "built:1", "committed:1", "kept:1"
        self.motd = {
            self.lazy: "base",
            self.half: "half",
            self.plain: "plain",
            self.built: "base",
            self.committed: "mine",
            self.kept: "kept",
        }
        self._context = site.stage.scratch / "context"
        self._context.mkdir()
        (self._context / "Dockerfile").write_text(
            f"FROM {self.lazy}\nRUN busybox cp -r /d0 /copy\nCOPY Dockerfile /\n"
        )
        self._kinds: list[Callable[[], str]] = [
            lambda: self.pull(self.plain),
            lambda: self.pull(self.lazy),
            self.build,
            lambda: self.pull(self.half),
            self.commit,
            self.run,
            self.remove,
            self.use_containerd,
        ]
        self._begin()
        self._seconds = [self._time(kind) for kind in self._kinds]

    def _begin(self) -> None:
        self.docker("pull", "--quiet", self.lazy)
        assert self.site.serving.directories() == []  # nothing has been unpacked
        for image in (self.plain, self.half):
            self.docker("pull", "--quiet", image)
        self._start("running", self.lazy)
        self._change(self.half, self.kept, "kept")
        self._running = self._docker_process()
        self.engine.pull(self.half)
        started = (
            "run",
            "--detach",
            "--snapshotter",
            NAME,
            self.half,
            "running",
            "busybox",
            "sleep",
            "100000",
        )
        self.engine.ctr(*started)
        self._task = self.engine.ctr("tasks", "ls")

    def _docker_process(self) -> str:
        return self.docker("inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", "running")

    def _start(self, name: str, image: str) -> None:
        self.docker(
            "run", "--detach", f"--name={name}", "--network=none", image, "busybox", "sleep", "100000"
        )

    @staticmethod
    def _time(action: Callable[[], object]) -> float:
        begin = time.monotonic()
        action()
        return time.monotonic() - begin

    # What they are busy with; each returns the image that it was about

    def pull(self, image: str) -> str:
        self.docker.succeeds("rmi", "--force", image)
        self.docker.succeeds("pull", "--quiet", image)
        return image

    def build(self) -> str:
        self.docker.succeeds(
            "build", "--quiet", "--no-cache", "--network=none", f"--tag={self.built}", str(self._context)
        )
        return self.built

    def commit(self) -> str:
        with suppress(AssertionError):
            self._change(self.lazy, self.committed, "mine")
        return self.committed

    def _change(self, image: str, name: str, motd: str) -> None:
        words = ("sh", "-c", f"busybox rm -r /d1/f0; echo {motd} >/motd")
        container = self.docker("create", "--network=none", image, *words).strip()
        self.docker("start", "--attach", container)
        self.docker("commit", container, name)
        self.docker("rm", container)

    def run(self) -> str:
        self.docker.succeeds("run", "--rm", "--network=none", self.half, "busybox", "ls", "/d0")
        return self.half

    def remove(self) -> str:
        for image in (self.built, self.committed, self.plain):
            self.docker.succeeds("rmi", "--force", image)
        self.docker.succeeds("builder", "prune", "--all", "--force")
        return self.plain

    def use_containerd(self) -> str:
        self.engine.succeeds(*self.engine.pulling(self.lazy))
        self.engine.succeeds("run", "--rm", "--snapshotter", NAME, self.lazy, "brief", "busybox", "true")
        self.engine.succeeds("images", "rm", "--sync", self.lazy)
        return self.lazy

    @contextmanager
    def going_on(self, number: int) -> Iterator[float]:
        """The operation whose turn it is goes on; gives after how many seconds to kill. Checks afterwards."""
        about = [self.kept]

        def work(kind: int) -> None:
            with suppress(subprocess.TimeoutExpired):
                about.append(self._kinds[kind]())

        with going_on(number, KILLS, self._seconds, work) as seconds:
            yield seconds
        wait_until(self._all_is_up, _PATIENCE)
        self.check(number, about)

    def _all_is_up(self) -> bool:
        """Whether all have connected to whom was killed, which may take them seconds."""
        words = ("tasks", "exec", "--exec-id", f"x{time.monotonic_ns()}", "running", "busybox", "true")
        return (
            self.docker.succeeds("exec", "running", "busybox", "true")
            and self.engine.succeeds(*words)
            and self.docker.succeeds("run", "--rm", "--network=none", self.kept, "busybox", "true")
        )

    def check(self, number: int, images: list[str]) -> None:
        """Who ran runs, and sees files that it has not read yet; the images work.

        Containers check what they see themselves, since engines may lose what a short one prints.
        """
        name = f"d1/f{number % _FILES}"
        digest = hashlib.sha256(_DATA[1][name]).hexdigest()
        sees = ("sh", "-c", f'[ "$(busybox sha256sum </{name})" = "{digest}  -" ]')
        assert self._docker_process() == self._running
        self.docker("exec", "running", *sees)
        assert self.engine.ctr("tasks", "ls") == self._task
        self.engine.ctr("tasks", "exec", "--exec-id", f"x{time.monotonic_ns()}", "running", *sees)
        for image in images:
            if not self.docker("images", "--quiet", image):
                if image in (self.built, self.committed):
                    continue
                self.docker("pull", "--quiet", image)
            whole = (
                f'[ "$(busybox cat /motd)" = {self.motd[image]} ] && '
                f"[ $(busybox ls /d0 | busybox wc -l) = {_FILES} ]"
            )
            self.docker("run", "--rm", "--network=none", image, "sh", "-c", whole)
        for container in self.docker("ps", "--all", "--quiet", "--filter=status=exited").split():
            self.docker("rm", "--force", container)
        self.engine.succeeds("tasks", "rm", "--force", "brief")
        self.engine.succeeds("containers", "rm", "brief")


def kill_snapshotter(site: LazySite) -> None:
    site.serving.stop(signal.SIGKILL)
    site.serving.start()


def kill_keeper(site: LazySite) -> None:
    """Its server goes on. For the next time there is a new keeper, of a new mount."""
    parents = parents_serving(site.repository)
    (keeper,) = {parent for parent in parents.values() if parent in parents}
    os.kill(keeper, signal.SIGKILL)
    umount(site.repository, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
    active = next(info.name for info in site.serving.infos("kind==active"))
    site.serving.mounts(active)


def kill_server(site: LazySite) -> None:
    def server() -> list[int]:
        parents = parents_serving(site.repository)
        return [pid for pid, parent in parents.items() if parent in parents]

    wait_until(server)
    os.kill(server()[0], signal.SIGKILL)


KILLING: dict[str, Callable[[LazySite], None]] = {
    "snapshotter": kill_snapshotter,
    "keeper": kill_keeper,
    "server": kill_server,
    "containerd": lambda site: site.engine.kill_daemon(),
    "dockerd": lambda site: site.docker.kill_daemon(),
}


@pytest.mark.parametrize("plane", ["fuse", "erofs"])
@pytest.mark.parametrize("victim", KILLING)
def test_kill(victim: str, plane: str, scratch: Path, installation: Installation) -> None:
    if installation.version("/usr/sbin/dockerd")[0] < 28:
        pytest.skip("needs Docker 28 or later: make test-matrix")
    place = scratch / f"{victim}-{plane}"
    place.mkdir()
    with stage(place) as set_up, lazy_site(place / "n", set_up, plane, installation) as site:
        work = Work(site)
        for number in range(KILLS):
            with work.going_on(number) as instant:
                time.sleep(instant)
                KILLING[victim](site)
        site.forget_everything()
        site.nothing_remains()
