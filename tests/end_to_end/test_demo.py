"""The demo as a user starts it, and that nothing is left of it, however it ends.

With Docker 28 or later (``--docker-root``) it shows the snapshotter, else the plugin.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from demo.installation import Installation
from tests.end_to_end.conftest import Scene
from tests.support.images import TestLayer, push, write_layout
from tests.support.project import PROJECT
from tests.support.tars import tar_of

pytestmark = [pytest.mark.root, pytest.mark.docker]

PATIENCE = 280.0


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo makes its scratch directory; short, since sockets lie deep in it."""
    path = Path(f"/var/tmp/t{os.getpid()}")
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def sleeper(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options for the demo: a small image that does not end by itself."""
    layout = tmp_path_factory.mktemp("layout")
    write_layout(layout, [TestLayer(tar_of({"busybox": Path("/bin/busybox").read_bytes()}))], config={})
    image = f"{scene.stage.registry}/sleeper:1"
    push(layout, image)
    return (
        "--image",
        image,
        "--command",
        "/busybox sh -c 'trap exit INT TERM; while /busybox sleep 1; do :; done'",
    )


Demo = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def demo(scratch: Path, installation: Installation) -> Demo:
    """Starts the demo with further options."""
    root = () if installation.root is None else ("--docker-root", str(installation.root))
    return lambda *options: running_demo(scratch, *root, *options)


@contextmanager
def running_demo(scratch: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo as a terminal starts it: in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *options],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(scratch), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        for directory in control_groups(process.pid):
            subprocess.run(["find", directory, "-depth", "-type", "d", "-delete"], check=False)


def control_groups(pid: int) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [*root.glob(f"cvmfs-graphdriver-{pid}-*"), *root.glob(f"*/cvmfs-graphdriver-{pid}-*")]


def running(scratch: Path) -> list[str]:
    """Processes and mounts that name the scratch directory."""
    found = []
    needle = os.fsencode(scratch)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            mounts = (process / "mountinfo").read_bytes()
        except OSError:
            continue
        if needle in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        if needle in mounts:
            found.append(f"mounts of process {process.name}")
    return found


def wait_for(text: str, process: subprocess.Popen[bytes]) -> None:
    stream = process.stderr
    assert stream is not None
    said, deadline = b"", time.monotonic() + PATIENCE
    while text.encode() not in said:
        ready, _, _ = select.select([stream], [], [], deadline - time.monotonic())
        assert ready, said
        piece = os.read(stream.fileno(), 1 << 16)
        assert piece, said
        said += piece


def test_the_demo(scratch: Path, demo: Demo, installation: Installation) -> None:
    with demo() as process:
        said = process.communicate(timeout=PATIENCE)[1].decode()
        assert process.returncode == 0, said
        assert ("cvmfs-snapshotter" in said) == (installation.version("/usr/sbin/dockerd")[0] >= 28)
        assert re.search(r"output\W+the same", said), said
        share = re.search(r"share of the compressed bytes\W+100 %\W+([0-9.]+) %", said)
        assert share, said
        assert 0 < float(share[1]) <= 10
        assert [*running(scratch), *scratch.iterdir(), *control_groups(process.pid)] == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("converting it", signal.SIGINT),
        ("starting a dockerd", signal.SIGTERM),
        ("running it lazily", signal.SIGINT),
    ],
)
def test_nothing_is_left_when_it_is_interrupted(
    text: str, number: signal.Signals, scratch: Path, demo: Demo, sleeper: tuple[str, ...]
) -> None:
    # The demo's own image is so big that converting it takes a while; the others need not wait for that.
    with demo(*(() if text == "converting it" else sleeper)) as process:
        wait_for(text, process)
        time.sleep(1)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert b"interrupted" in said
        assert b"Traceback" not in said
        assert [*running(scratch), *scratch.iterdir(), *control_groups(process.pid)] == []


def test_no_process_and_no_mount_is_left_when_it_is_killed(
    scratch: Path, demo: Demo, sleeper: tuple[str, ...]
) -> None:
    with demo(*sleeper) as process:
        wait_for("running it lazily", process)
        time.sleep(1)
        process.kill()
        process.communicate(timeout=60)
        deadline = time.monotonic() + 10
        while running(scratch) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert running(scratch) == []
