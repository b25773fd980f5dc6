"""kill -9 at any instant of Docker's work: to the driver, to dockerd, to both. Afterwards all commands work.

``KILLS`` says how many times each (6; ``make endurance``: 50). The instants are spread over the whole of each
operation. No mount is left, nothing half made, and no layer that nobody owns. Two things no driver can
know, whichever it is: a dockerd that is killed keeps the layers of an image that it had half pulled in its
database, so they have an owner; and it gives a layer to its driver before it writes down that it has it, so
a whole layer that it forgets in between stays. That is rare, and the test says how rare.
"""

import os
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.graphdriver.init_layers import orphaned_init_layers
from cvmfs_graphdriver.kernel.mountinfo import mounts_below
from cvmfs_graphdriver.layers.store import LayerStore, StoredLayer
from demo.daemons import DaemonError, DockerEngine
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins
from tests.support.images import TestLayer, push, write_layout
from tests.support.killing import going_on
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

KILLS = int(os.environ.get("KILLS", "6"))
_BUSYBOX = Path("/bin/busybox")
_PATIENCE = 20.0


@pytest.fixture(scope="module")
def images(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A small image of three layers, normal and thin."""
    shell = tarfile.TarInfo("bin/sh")
    shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
    base = tar_of(("bin", None), ("bin/busybox", _BUSYBOX.read_bytes()), shell)
    more = [
        tar_of({f"d{number}": None, **{f"d{number}/f{n}": os.urandom(3000) for n in range(200)}})
        for number in range(2)
    ]
    layout = tmp_path_factory.mktemp("layout")
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    write_layout(layout, [TestLayer(base), *map(TestLayer, more)], config=config)
    normal, thin = f"{scene.stage.registry}/kill:1", f"{scene.stage.registry}/kill:1-thin"
    push(layout, normal)
    scene.stage.convert(normal, thin)
    return normal, thin


@pytest.fixture(scope="module")
def engine(scene: Scene, plugins: Plugins) -> Iterator[DockerEngine]:
    with plugins.engine(scene.stage.scratch, "killed", scene.stage.etc) as engine:
        yield engine


class Work:
    """What Docker is busy with, whether it succeeds or no: pulls, builds, commits and runs."""

    def __init__(self, engine: DockerEngine, images: tuple[str, str], context: Path) -> None:
        self.engine = engine
        self.normal, self.thin = images
        self.context = context
        (context / "Dockerfile").write_text(
            f"FROM {self.thin}\nRUN busybox cp -r /d0 /copy\nCOPY Dockerfile /\n"
        )
        for image in images:
            engine.docker("pull", "--quiet", image)
        self._kinds = [self.pull, self.build, self.commit, self.run]
        self._seconds = [self._time(kind) for kind in self._kinds]

    @staticmethod
    def _time(action: Callable[[], None]) -> float:
        begin = time.monotonic()
        action()
        return time.monotonic() - begin

    def pull(self) -> None:
        with suppress(DaemonError):
            self.engine.docker("rmi", "--force", self.normal)
        self.engine.docker("pull", "--quiet", self.normal)

    def build(self) -> None:
        self.engine.docker(
            "build", "--quiet", "--no-cache", "--network", "none", "--tag", "built", str(self.context)
        )

    def commit(self) -> None:
        name = self.engine.docker(
            "create", "--network", "none", self.thin, "sh", "-c", "busybox rm -r /d1; echo x > /made"
        )
        self.engine.docker("start", "--attach", name)
        self.engine.docker("commit", name, "committed")
        self.engine.docker("rm", name)

    def run(self) -> None:
        self.engine.run(self.normal, "busybox", "ls", "/d0")

    def going_on(self, number: int) -> AbstractContextManager[float]:
        """The operation whose turn it is goes on; gives after how many seconds to kill the next."""

        def work(kind: int) -> None:
            with suppress(DaemonError):
                self._kinds[kind]()

        return going_on(number, KILLS, self._seconds, work)

    def check(self) -> None:
        """All commands work."""
        engine = self.engine
        engine.docker("images")
        engine.docker("ps", "--all")
        for image in (self.normal, self.thin):
            if not engine.docker("images", "--quiet", image):
                engine.docker("pull", "--quiet", image)
            assert engine.run(image, "busybox", "ls", "/d1").count(b"\n") == 200
        for image in ("built", "committed"):
            if engine.docker("images", "--quiet", image):
                assert engine.run(image, "busybox", "ls", "/d0").count(b"\n") == 200
                engine.docker("rmi", "--force", image)
        for container in engine.docker("ps", "--all", "--quiet").split():
            engine.docker("rm", "--force", container)


def in_time(action: Callable[[], object]) -> None:
    """An action that works soon, if not at once."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            action()
        except DaemonError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def driver_of(engine: DockerEngine) -> int:
    """The process of the plugin that speaks with Docker: the child of the one that supervises it."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                root = os.readlink(place / "root")
                parent = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
                if b"plugin" in words and any(b"cvmfs_graphdriver.cli.main" in word for word in words):
                    found[int(place.name)] = parent, root
    (driver,) = (pid for pid, (parent, _) in found.items() if parent in found and ours(pid, engine))
    return driver


def ours(pid: int, engine: DockerEngine) -> bool:
    """Whether a process sees this engine's plugin directory mounted."""
    return os.fsencode(engine.directory) in Path(f"/proc/{pid}/mountinfo").read_bytes()


def owned(engine: DockerEngine) -> set[str]:
    """The layers that Docker's database names, of images and of containers."""
    names = ("cache-id", "mount-id", "init-id", "parent")
    database = engine.directory / "data/image"
    files = [path for path in database.rglob("layerdb/*/*/*") if path.name in names]
    files += database.rglob("layerdb/sha256/*/cache-id")
    return {path.read_text() for path in files}


def check_left_over(engine: DockerEngine) -> None:
    """Nothing is left when Docker has no image and no container but what its database names."""
    engine.docker("system", "prune", "--all", "--force", "--volumes")
    assert not engine.docker("ps", "--all", "--quiet")
    assert not engine.docker("images", "--all", "--quiet")
    engine.stop()
    assert not [mount for mount in mounts_below(engine.directory) if mount.filesystem == b"overlay"]
    engine.start("cvmfs")
    home = engine.driver_home()
    mounted = Path(f"/proc/{driver_of(engine)}/mountinfo").read_text()
    assert not [line for line in mounted.splitlines() if line.split()[4].endswith("/merged")]
    layers = [StoredLayer(path.name, path) for path in home.iterdir() if (path / "diff").exists()]
    assert not [path for path in home.iterdir() if path.name.startswith(".new")]
    assert not [layer.id for layer in layers if layer.is_half_filled]
    assert not orphaned_init_layers(LayerStore(home))
    forgotten = {layer.id for layer in layers} - owned(engine)
    print("layers that Docker forgot:", len(forgotten), "after", KILLS, "kills")
    assert len(forgotten) <= max(4, KILLS // 3), forgotten
    for identity in forgotten:
        LayerStore(home).remove(identity)


def kill_the_driver(engine: DockerEngine) -> None:
    os.kill(driver_of(engine), signal.SIGKILL)


def kill_both(engine: DockerEngine) -> None:
    engine.kill()
    engine.start("cvmfs")


KILLING = {"driver": kill_the_driver, "dockerd": DockerEngine.kill_daemon, "both": kill_both}


@pytest.mark.parametrize("victim", KILLING)
def test_kill(victim: str, engine: DockerEngine, images: tuple[str, str], tmp_path: Path) -> None:
    work = Work(engine, images, tmp_path)
    for number in range(KILLS):
        with work.going_on(number) as instant:
            time.sleep(instant)
            KILLING[victim](engine)
        in_time(work.check)
    check_left_over(engine)
