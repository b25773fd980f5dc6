"""Docker 28 and containerd 2 with our snapshotter, against containerd's own and stargz, in the same run.

Each engine is a containerd and a dockerd of its own, of the same installation; images are run by ``docker``
and by ``ctr``. "Cold" means engines and snapshotters that have just been started, with empty caches; it
begins with the pull. Needs root, and the root directory that ``make bench`` prepares.
"""

import contextlib
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pairs import Pair, Result, measure
from benchmarks.stargz import push_estargz, stargz, without_oddities
from demo.containerd import OVERLAYFS, ContainerdEngine, Snapshotter, cvmfs_snapshotter
from demo.daemons import end_on_signals
from demo.images import build_image, push_image, write_layout
from demo.installation import Installation
from demo.stage import FQRN, Stage, stage

_PROJECT = Path(__file__).resolve().parent.parent
_ROOT = _PROJECT / "build" / "docker-newest"


@dataclass(frozen=True, slots=True)
class Client:
    """How a client pulls, runs and removes an image."""

    name: str
    pull: Callable[[ContainerdEngine, str], object]
    run: Callable[[ContainerdEngine, str], object]
    remove: Callable[[ContainerdEngine, str], object]


_names = (f"run-{number}" for number in itertools.count())
DOCKER = Client(
    "Docker",
    lambda engine, image: engine.docker("pull", "--quiet", image),
    lambda engine, image: engine.run(image),
    lambda engine, image: engine.docker("rmi", image),
)
CTR = Client(
    "containerd",
    lambda engine, image: engine.ctr(
        "images", "pull", "--plain-http", "--snapshotter", engine.snapshotter, image
    ),
    lambda engine, image: engine.ctr("run", "--rm", "--snapshotter", engine.snapshotter, image, next(_names)),
    lambda engine, image: engine.ctr("images", "rm", "--sync", image),
)


def run() -> list[Result]:
    with (
        tempfile.TemporaryDirectory(prefix="cvmfs-bench-", dir="/var/tmp") as scratch,
        end_on_signals(),
        stage(Path(scratch)) as set_up,
    ):
        layout = Path(scratch) / "layout"
        shutil.copytree(build_image(_PROJECT / "build" / "demo"), layout)
        without_oddities(layout)
        return _Bench(set_up, Installation(_ROOT), layout).run()


class _Bench:
    def __init__(self, here: Stage, installation: Installation, layout: Path) -> None:
        self._here = here
        self._installation = installation
        self._layout = layout
        self._image = f"{here.registry}/demo:1"
        self._ours = cvmfs_snapshotter(FQRN, here.etc)
        self._numbers = itertools.count()

    def run(self) -> list[Result]:
        """All rows; the image is in the repository, and has a copy for the peer, from half-way on."""
        push_image(self._layout, self._image)
        self._publish_another()
        with self._engine(OVERLAYFS) as stock:
            with self._engine(self._ours) as ours:
                results: list[Result] = [self._normal(client, ours, stock) for client in (DOCKER, CTR)]
            self._here.publish(self._image)
            with self._engine(self._ours) as ours:
                results += [self._warm(client, ours, stock) for client in (DOCKER, CTR)]
            copy = f"{self._image}-estargz"
            push_estargz(_PROJECT / "build" / "demo", self._layout, stock, self._image, copy)
        peer = stargz(self._here.scratch, self._installation)
        return [*results, *(self._cold(client, peer, copy) for client in (DOCKER, CTR))]

    def _publish_another(self) -> None:
        """So that the repository has an index."""
        tar, layout = self._here.scratch / "another.tar", self._here.scratch / "another"
        subprocess.run(["tar", "--create", "--file", tar, "--directory", _PROJECT, "benchmarks"], check=True)
        write_layout(layout, [tar])
        another = f"{self._here.registry}/another:1"
        push_image(layout, another)
        self._here.publish(another)

    def _normal(self, client: Client, ours: ContainerdEngine, stock: ContainerdEngine) -> Pair:
        used: list[ContainerdEngine] = []

        def forget() -> None:
            while used:
                client.remove(used.pop(), self._image)

        def pull_and_run(engine: ContainerdEngine) -> None:
            used.append(engine)
            client.pull(engine, self._image)
            client.run(engine, self._image)

        pair = measure(
            f"{client.name}: pull and run of an image that no repository has, against overlayfs",
            lambda: pull_and_run(ours),
            lambda: pull_and_run(stock),
            goal=1.1,
            prepare=forget,
        )
        forget()
        return pair

    def _warm(self, client: Client, ours: ContainerdEngine, stock: ContainerdEngine) -> Pair:
        for engine in (ours, stock):
            client.pull(engine, self._image)
            client.run(engine, self._image)
        pair = measure(
            f"{client.name}: warm start of a lazy image, against overlayfs",
            lambda: client.run(ours, self._image),
            lambda: client.run(stock, self._image),
            runs=25,
            goal=1.05,
        )
        for engine in (ours, stock):
            client.remove(engine, self._image)
        return pair

    def _cold(self, client: Client, peer: Snapshotter, copy: str) -> Pair:
        """Each run on engines of its own; these are started before the clock."""
        with contextlib.ExitStack() as engines:

            def prepare() -> None:
                engines.close()
                started[:] = [engines.enter_context(self._engine(each)) for each in (self._ours, peer)]

            def first_run(which: int, image: str) -> None:
                client.pull(started[which], image)
                client.run(started[which], image)

            started: list[ContainerdEngine] = []
            return measure(
                f"{client.name}: cold start of the unmodified image, against stargz and an eStargz copy",
                lambda: first_run(0, self._image),
                lambda: first_run(1, copy),
                goal=1,
                prepare=prepare,
            )

    @contextlib.contextmanager
    def _engine(self, snapshotter: Snapshotter) -> Iterator[ContainerdEngine]:
        name = f"{snapshotter.name}-{next(self._numbers)}"
        with ContainerdEngine(self._here.scratch, name, self._installation) as engine:
            engine.start(snapshotter)
            yield engine
