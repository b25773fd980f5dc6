"""Servers that die again and again, hang, or have no memory left: their mounts go on."""

import os
import random
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.administration.running import ask_status
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.kernel.waiting.watch import LONG
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.support.entries import directory, file
from tests.support.fixtures import serve, slowly, unpack
from tests.support.mounts import end, mounted, pids_serving, wait_until
from tests.support.published import Published, published

pytestmark = pytest.mark.root
BIG = random.Random(3).randbytes(3 << 20)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def own(tmp_path: Path, log: Path) -> Iterator[tuple[Published, Path]]:
    """A repository of our own, mounted, which is looked at every second."""
    with published(tmp_path / "repository", ttl=1) as repository:
        repository.publish({b"/d": [file("/number", b"1"), file("/big", BIG)]})
        target = tmp_path / "mnt"
        target.mkdir()
        spawn(MountRequest(repository.fqrn, target, repository.etc, overrides={"CVMFS_USYSLOG": str(log)}))
        yield repository, target
        end(target)


def revision_of(mount: Path) -> int:
    with suppress(OSError):
        return int(os.getxattr(mount, "user.revision"))
    return 0


@contextmanager
def killing(mount: Path, revision: int) -> Iterator[None]:
    """Kill every server as soon as it shows this revision, as its content might."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.02):
            servers = pids_serving(mount)[1:]
            if servers and revision_of(mount) == revision:
                with suppress(ProcessLookupError):
                    os.kill(servers[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_servers_that_die_of_a_revision_go_back_to_the_one_before_until_there_is_another(
    own: tuple[Published, Path], log: Path
) -> None:
    repository, mount = own
    good = revision_of(mount)
    time.sleep(12)  # only what has worked for ten seconds is good
    with killing(mount, good + 1):
        repository.publish({b"/d": [file("/number", b"2")]})
        wait_until(lambda: log.exists() and "again and again" in log.read_text(), 60)
        wait_until(lambda: revision_of(mount) == good, 30)
        time.sleep(3)  # it would have been looked for again meanwhile
        assert revision_of(mount) == good
        assert (mount / "d" / "number").read_bytes() == b"1"
        assert (mount / "d" / "big").read_bytes() == BIG
    status = ask_status(load_settings(repository.fqrn, repository.etc).talk_socket)
    assert status.revision == good
    assert status.avoided == str(repository.repository.manifest().root)
    repository.publish({b"/d": [file("/number", b"3")]})
    wait_until(lambda: revision_of(mount) == good + 2, 20)
    assert (mount / "d" / "number").read_bytes() == b"3"
    assert not ask_status(load_settings(repository.fqrn, repository.etc).talk_socket).avoided


@pytest.mark.parametrize("which", ["while it serves", "while it starts"])
def test_a_server_that_hangs_is_replaced(own: tuple[Published, Path], log: Path, which: str) -> None:
    _, mount = own
    keeper, server = pids_serving(mount)
    if which == "while it starts":
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: any(pid not in {keeper, server} for pid in pids_serving(mount)))
        server = next(pid for pid in pids_serving(mount) if pid not in {keeper, server})
    os.kill(server, signal.SIGSTOP)
    began = time.monotonic()
    assert (mount / "d" / "big").read_bytes() == BIG
    assert time.monotonic() - began < 40
    assert pids_serving(mount)[0] == keeper
    assert server not in pids_serving(mount)
    assert "the server gives no sign of life" in log.read_text()


def test_a_server_without_memory_dies_and_the_next_one_answers(
    own: tuple[Published, Path], log: Path
) -> None:
    repository, mount = own
    number = revision_of(mount) + 1
    repository.publish({b"/many": [directory(""), *(file(f"/{'n' * 100}{n}", b"") for n in range(20_000))]})
    wait_until(lambda: revision_of(mount) == number)
    server = pids_serving(mount)[1]
    _, most = resource.prlimit(server, resource.RLIMIT_DATA)
    resource.prlimit(server, resource.RLIMIT_DATA, (data_of(server) + (4 << 20), most))
    assert len(os.listdir(mount / "many")) == 20_000
    assert server not in pids_serving(mount)
    assert len(pids_serving(mount)) == 2
    assert "the server ended with 1" in log.read_text()


def data_of(process: int) -> int:
    """Bytes of a process that count for RLIMIT_DATA."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmData:")[2].split()[0])


def test_waits_are_told_with_what_is_waited_for(tmp_path: Path, log: Path) -> None:
    repository = unpack("lite-sha1-zlib", tmp_path / "repository")
    parameters = {"CVMFS_TIMEOUT_DIRECT": "30", "CVMFS_USYSLOG": str(log)}
    with (
        serve(repository.directory) as server,
        mounted(repository, server, tmp_path, parameters=parameters) as mount,
    ):
        server.faults["*"] = slowly(LONG + 2)
        found = next(path for path in mount.rglob("*") if path.is_file() and path.stat().st_size)
        assert found.read_bytes()
        (line,) = (line for line in log.read_text().splitlines() if "has been waiting" in line)
        inode = found.stat().st_ino
    assert re.search(
        rf"READ of inode {inode} has been waiting for 1[0-2] s for data/../\S+ from http://", line
    )
