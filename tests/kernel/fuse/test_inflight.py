"""What a killed server was about to answer, its successor answers."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.fuse.device import mount_device, open_device, set_readahead
from cvmfs_graphdriver.kernel.fuse.inflight import InFlight
from cvmfs_graphdriver.kernel.fuse.server import Server
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from tests.support.memory_filesystem import MemoryFilesystem


@pytest.mark.parametrize(("killed", "deaths"), [(False, 4), (True, 12)])
def test_a_slot_counts_the_servers_that_died_with_its_request(*, killed: bool, deaths: int) -> None:
    inflight = InFlight(2)
    empty, slot = inflight.slots
    assert not slot.occupied
    slot.buffer[:4] = (99).to_bytes(4, "little")
    assert slot.occupied
    for _ in range(deaths):
        assert not slot.is_hopeless
        inflight.blame(killed=killed)
    assert slot.is_hopeless
    assert not empty.is_hopeless
    slot.clear()
    assert not slot.occupied
    assert not slot.is_hopeless


class Keeper:
    """Forks servers for one mount."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.device = open_device()
        self.inflight = InFlight(3)
        self.server = 0
        self.filesystem = MemoryFilesystem()
        self.filesystem.add(b"file", stat.S_IFREG | 0o644, b"content")

    def start(self, *, stuck: bool = False, suicidal: bool = False) -> None:
        self.server = os.fork()
        if self.server:
            return
        if stuck:
            self.filesystem.before = lambda operation, _node: (
                time.sleep(60) if operation == "lookup" else None
            )
        if suicidal:
            self.filesystem.before = lambda operation, _node: (
                os.kill(os.getpid(), signal.SIGKILL) if operation == "lookup" else None
            )
        Server(self.device, self.filesystem, self.inflight).serve()
        os._exit(0)

    def kill(self) -> None:
        os.kill(self.server, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        os.waitpid(self.server, 0)
        self.server = 0
        self.inflight.blame(killed=False)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    mount_device(keeper.device, tmp_path, source="memory", subtype="test")
    yield keeper
    while mount_at(tmp_path):
        umount(tmp_path, UmountFlag.DETACH)
    os.close(keeper.device)
    if keeper.server:
        keeper.kill()


@pytest.mark.root
def test_a_reader_sees_a_pause_and_no_error(keeper: Keeper) -> None:
    keeper.start(stuck=True)
    with subprocess.Popen(["cat", keeper.target / "file"], stdout=subprocess.PIPE) as reader:
        time.sleep(0.3)
        keeper.kill()
        assert reader.poll() is None
        keeper.start()
        assert reader.stdout is not None
        assert reader.stdout.read() == b"content"


@pytest.mark.root
def test_a_request_that_kills_servers_is_given_up(keeper: Keeper) -> None:
    keeper.start(suicidal=True)
    with subprocess.Popen(["cat", keeper.target / "file"], stderr=subprocess.PIPE) as reader:
        for _ in range(4):
            keeper.wait()
            keeper.start(suicidal=True)
        assert reader.stderr is not None
        assert b"Input/output error" in reader.stderr.read()
    assert os.lstat(keeper.target).st_ino == 1, "the last server lives"


@pytest.mark.root
def test_readahead_can_be_raised(keeper: Keeper) -> None:
    keeper.start()
    os.lstat(keeper.target)
    mount = mount_at(keeper.target)
    assert mount is not None
    assert set_readahead(keeper.target, 2 << 20)
    major, minor = mount.device
    assert Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").read_text() == "2048\n"
    assert not set_readahead(keeper.target / "nothing", 1)
