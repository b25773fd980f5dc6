"""Running containers never notice a new revision, nor that a repository's server was killed.

On both planes at once: a container is used in every way while ten revisions are published, and the
repository's server is killed after each, until all has been used again. What is read is compared with what
was put into the image.
"""

import hashlib
import mmap
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from demo.daemons import DaemonError, DockerEngine
from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.engines import Plugins
from tests.support.images import TestLayer, push, write_layout
from tests.support.mounts import wait_until
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

_ROUNDS = 10
_CACHED, _SMALL = 20, 2000
_BIG = 48 << 20
_PAGE = mmap.PAGESIZE


def _small(number: int) -> bytes:
    return b"%d " % number * 100


@pytest.fixture(scope="module")
def big() -> bytes:
    """The content of a file in chunks."""
    return random.Random(7).randbytes(_BIG)


@pytest.fixture(scope="module")
def image(scene: Scene, big: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A thin image: small files, each with a hard link, one file in chunks, and a program in chunks."""
    busybox = Path("/bin/busybox").read_bytes()
    shell = tarfile.TarInfo("bin/sh")
    shell.type, shell.linkname = tarfile.SYMTYPE, "busybox"
    links = []
    for number in range(_SMALL):
        link = tarfile.TarInfo(f"small/link{number}")
        link.type, link.linkname = tarfile.LNKTYPE, f"small/file{number}"
        links.append(link)
    layer = tar_of(
        ("bin", None),
        ("bin/busybox", busybox),
        ("bin/busybox-big", busybox + bytes(100) + big[: 24 << 20]),
        shell,
        ("small", None),
        *((f"small/file{number}", _small(number)) for number in range(_SMALL)),
        *links,
        ("big", big),
    )
    return _thin(scene, layer, "revisions:1", tmp_path_factory.mktemp("layout"))


def _thin(scene: Scene, layer: bytes, name: str, layout: Path) -> str:
    """Push an image of one layer, and convert it, which makes a new revision."""
    write_layout(layout, [TestLayer(layer)], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    normal = f"{scene.stage.registry}/{name}"
    push(layout, normal)
    scene.stage.convert(normal, f"{normal}-thin")
    return f"{normal}-thin"


class Mapping:
    """A file mapped by a process of its own: a page that cannot be had is that process's death."""

    _PROGRAM = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for line in sys.stdin:
    offset = int(line)
    print(hashlib.sha256(mapped[offset : offset + mmap.PAGESIZE]).hexdigest(), flush=True)
"""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-S", "-c", self._PROGRAM, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def page(self, offset: int) -> str:
        """The digest of the page there; raises OSError if the process has died, empty if it dies now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(offset, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)


@dataclass
class Use:
    """What is done in one container, and what was wrong."""

    engine: DockerEngine
    container: str
    root: Path
    big: bytes
    mapping: "Mapping"
    wrong: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def small(self, turn: int) -> None:
        """Read and stat a file that is in the cache, and one that perhaps is not; each has one more name."""
        for number in (turn % _CACHED, turn % _SMALL):
            by_name, by_link = self.root / f"small/file{number}", self.root / f"small/link{number}"
            assert by_name.read_bytes() == _small(number)
            assert by_link.read_bytes() == _small(number)
            first, second = by_name.stat(), by_link.stat()
            assert (first.st_ino, first.st_size, first.st_nlink) == (second.st_ino, len(_small(number)), 2)

    def chunks(self, turn: int) -> None:
        """Read somewhere in the file in chunks: by descriptor, by an old mapping and a new one."""
        offset = random.Random(turn).randrange(min(_BIG, (turn + 1) << 18) // _PAGE) * _PAGE
        expected = self.big[offset : offset + _PAGE]
        assert self.mapping.page(offset) == hashlib.sha256(expected).hexdigest()
        with (self.root / "big").open("rb") as file:
            assert os.pread(file.fileno(), _PAGE, offset) == expected
        with Mapping(self.root / "big") as another:
            assert another.page(offset) == hashlib.sha256(expected).hexdigest()

    def listing(self, _: int) -> None:
        assert len(os.listdir(self.root / "small")) == 2 * _SMALL

    def execute(self, _: int) -> None:
        """What `docker exec` does, with a program that is one object, and with one in chunks."""
        for program in ("busybox", "busybox-big"):
            said = self.engine.docker("exec", self.container, program, "echo", "well")
            assert said == "well"

    def use_again(self, stop: threading.Event) -> None:
        """Wait until all is done, from its begin, that is done in it."""
        before = self.done.copy()
        while any(self.done[way] < count + 2 for way, count in before.items()) and not self.wrong:
            stop.wait(0.05)

    def go_on(self, action: Callable[[int], None], pause: float, stop: threading.Event) -> None:
        turn = 0
        while not stop.wait(pause):
            try:
                action(turn)
                self.done[action.__name__] += 1
            except (AssertionError, OSError, DaemonError, ValueError) as error:
                self.wrong.append(f"{action.__name__} {turn}: {error!r}"[:300])
            turn += 1


def _processes(engine: DockerEngine) -> dict[int, tuple[int, list[bytes]]]:
    """Parent and command line of each process that sees the engine's directory mounted."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                if os.fsencode(engine.directory) in (place / "mountinfo").read_bytes():
                    parent = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
                    found[int(place.name)] = parent, (place / "cmdline").read_bytes().split(b"\0")
    return found


def _kill_servers(engine: DockerEngine) -> int:
    """Kill the servers of the engine's repositories; their keepers are their parents."""
    of_mounts = {
        pid: parent
        for pid, (parent, words) in _processes(engine).items()
        if any(word.startswith(b"cvmfs_graphdriver.planes.") and b"keeper" in word for word in words)
    }
    servers = [pid for pid, parent in of_mounts.items() if parent in of_mounts]
    for server in servers:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
    return len(servers)


def _root_of(seconds: str) -> Path | None:
    """The root directory of the container that sleeps for so long, once it does."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                if (place / "cmdline").read_bytes() == b"busybox\0sleep\0%b\0" % seconds.encode():
                    return place / "root"
    return None


@pytest.fixture(scope="module")
def engines(scene: Scene, plugins: Plugins, installation: Installation) -> Iterator[dict[str, DockerEngine]]:
    with ExitStack() as stack:
        yield {
            plane: stack.enter_context(
                plugins.engine(
                    scene.stage.scratch,
                    f"revisions-{plane}",
                    scene.stage.etc,
                    installation=installation,
                    settings=[f"DATA_PLANE={plane}"],
                )
            )
            for plane in ("fuse", "erofs")
        }


def test_running_containers_never_notice(
    engines: dict[str, DockerEngine], scene: Scene, image: str, big: bytes, tmp_path: Path
) -> None:
    stop = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        stack.callback(stop.set)
        uses = {
            plane: _start(engine, image, big, str(os.getpid() * 10 + number), stack)
            for number, (plane, engine) in enumerate(engines.items())
        }
        actions = [
            pool.submit(use.go_on, action, pause, stop)
            for use in uses.values()
            for action, pause in ((use.small, 0.02), (use.chunks, 0.05), (use.listing, 1), (use.execute, 1))
        ]
        wait_until(lambda: all(len(use.done) == 4 for use in uses.values()), 60)
        killed = 0
        for number in range(_ROUNDS):
            layout = tmp_path / str(number)
            newer = _thin(scene, tar_of({f"new{number}": b"new"}), f"newer:{number}", layout)
            for engine in engines.values():
                new = engine.docker("create", "--network", "none", newer, "none")  # of the new revision
                engine.docker("rm", new)
                killed += _kill_servers(engine)
            for use in uses.values():
                use.use_again(stop)
        stop.set()
        for action in actions:
            action.result()
    assert killed >= 2 * _ROUNDS
    assert {plane: use.wrong for plane, use in uses.items()} == {plane: [] for plane in uses}
    assert min(use.done.total() for use in uses.values()) > 500


def _start(engine: DockerEngine, image: str, big: bytes, seconds: str, stack: ExitStack) -> Use:
    """A container that sleeps for so long, by which its process is found, and a mapping of its big file."""
    container = engine.docker("run", "--detach", "--network", "none", image, "busybox", "sleep", seconds)
    stack.callback(engine.docker, "rm", "--force", container)
    wait_until(lambda: _root_of(seconds))
    root = _root_of(seconds)
    assert root is not None
    use = Use(engine, container, root, big, stack.enter_context(Mapping(root / "big")))
    for number in range(_CACHED):
        use.small(number)
    use.execute(0)
    return use
