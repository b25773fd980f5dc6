"""Mounts that outlive their servers."""

import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.channel import Channel
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at
from cvmfs_graphdriver.planes.errors import MountPointError, ServerError
from cvmfs_graphdriver.planes.service.request import MountRequest, receive_answer, refusal
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.support.entries import file
from tests.support.fixtures import Server, UnpackedRepository, serve, unpack
from tests.support.mounts import end, mounted, pids_serving, wait_until
from tests.support.published import Published, published

pytestmark = pytest.mark.root


@pytest.fixture
def repository(tmp_path: Path) -> UnpackedRepository:
    return unpack("lite-sha1-zlib", tmp_path / "repository")


@pytest.fixture
def server(repository: UnpackedRepository) -> Iterator[Server]:
    with serve(repository.directory) as server:
        yield server


def digest_of(tree: Path) -> str:
    """Everything about a tree that a program can see, in one digest."""
    hasher = hashlib.sha256()
    for directory, names, files in os.walk(os.fsencode(tree)):
        names.sort()
        for name in sorted(files):
            path = directory + b"/" + name
            status = os.lstat(path)
            hasher.update(b"%b %o %d %d\n" % (path, status.st_mode, status.st_size, status.st_ino))
            if not os.path.islink(path) and os.path.isfile(path):
                with open(path, "rb") as file:
                    hasher.update(file.read())
    return hasher.hexdigest()


def test_killed_servers_cost_readers_time_and_nothing_else(
    repository: UnpackedRepository, server: Server, tmp_path: Path
) -> None:
    """Cold reads, over and over, while the server is killed at arbitrary instants."""
    with mounted(repository, server, tmp_path) as mount:
        expected = digest_of(mount)
        keeper, _ = pids_serving(mount)
        done = threading.Event()
        spared = {keeper}

        def next_server() -> list[int]:
            return [pid for pid in pids_serving(mount) if pid not in spared]

        def kill() -> None:
            for number in range(6):
                wait_until(next_server)
                time.sleep(0.05 * number)
                (server,) = next_server()
                os.kill(server, signal.SIGKILL)
                spared.add(server)  # it may be seen for a moment yet
            done.set()

        killer = threading.Thread(target=kill)
        killer.start()
        rounds = 0
        while not done.is_set() or not rounds:
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
            assert digest_of(mount) == expected
            rounds += 1
        killer.join()
        wait_until(lambda: len(pids_serving(mount)) == 2)
        assert pids_serving(mount)[0] == keeper


def test_a_mount_ends_with_umount_and_leaves_no_process(
    repository: UnpackedRepository, server: Server, tmp_path: Path
) -> None:
    with mounted(repository, server, tmp_path) as mount:
        assert len(pids_serving(mount)) == 2
        umount(mount)
        wait_until(lambda: not pids_serving(mount))


def test_a_lazily_unmounted_repository_serves_who_still_uses_it(
    repository: UnpackedRepository, server: Server, tmp_path: Path
) -> None:
    with mounted(repository, server, tmp_path) as mount:
        root = os.open(mount, os.O_RDONLY)
        os.kill(pids_serving(mount)[0], signal.SIGTERM)
        wait_until(lambda: mount_at(mount) is None)
        assert os.listdir(root)
        time.sleep(0.2)
        assert len(pids_serving(mount)) == 2
        os.close(root)
        wait_until(lambda: not pids_serving(mount))


def test_the_mount_table_tells_what_it_is(
    repository: UnpackedRepository, server: Server, tmp_path: Path
) -> None:
    with mounted(repository, server, tmp_path) as mount:
        found = mount_at(mount)
        assert found is not None
        assert (found.filesystem, found.source) == (b"fuse.cvmfs", b"cvmfs-graphdriver")
        assert {b"ro", b"nodev", b"nosuid"} <= set(found.options)
        assert b"allow_other" in found.super_options
        umount(mount)
        request = MountRequest(repository.fqrn, mount, tmp_path / "etc", suid=True)
        spawn(request)
        found = mount_at(mount)
        assert found is not None
        assert b"nosuid" not in found.options


def test_refusals(repository: UnpackedRepository, server: Server, tmp_path: Path) -> None:
    repository.settings(server.url, tmp_path)
    target = tmp_path / "mnt"
    request = MountRequest(repository.fqrn, target, tmp_path / "etc")
    with pytest.raises(MountPointError, match="not a directory"):
        spawn(request)
    target.mkdir()
    with pytest.raises(ServerError, match="no.such.repository") as caught:
        spawn(MountRequest("no.such.repository", target, tmp_path / "etc"))
    assert 20 <= caught.value.reason_code < 30, "the code of the client's error"
    assert mount_at(target) is None
    wait_until(lambda: not pids_serving(target))


def test_a_dead_mount_is_refused_with_advice(
    repository: UnpackedRepository, server: Server, tmp_path: Path
) -> None:
    with mounted(repository, server, tmp_path) as mount:
        for pid in pids_serving(mount):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pids_serving(mount))
        with pytest.raises(MountPointError, match="unmount it first"):
            spawn(MountRequest(repository.fqrn, mount, tmp_path / "etc"))
        umount(mount, UmountFlag.DETACH)


def test_requests_survive_the_pipe(tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"\xff\n")
    request = MountRequest("x.y.z", target, overrides={"CVMFS_X": "ü\n"}, whiteouts=True, threads=5)
    ours, theirs = Channel.pair()
    ours.send(request.message())
    assert MountRequest.of_message(theirs.receive()) == request
    theirs.send(refusal(ValueError("no reason"), 5))
    with pytest.raises(ServerError, match="no reason") as caught:
        receive_answer("x.y.z", ours)
    assert caught.value.reason_code == 5
    theirs.close()
    with pytest.raises(ServerError, match="died at once"):
        receive_answer("x.y.z", ours)
    ours.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Published, Path]]:
    """A repository of our own, mounted, which is looked at every second, and whose transfers end in one."""
    quick = {"CVMFS_TIMEOUT": "1", "CVMFS_TIMEOUT_DIRECT": "1", "CVMFS_MAX_RETRIES": "0"}
    with published(tmp_path / "repository", ttl=1) as repository:
        repository.publish({b"/old": [file("/f", b"first"), file("/g", b"unread")]})
        target = tmp_path / "mnt"
        target.mkdir()
        spawn(MountRequest(repository.fqrn, target, repository.etc, overrides=quick))
        yield repository, target
        end(target)


def revision_of(mount: Path) -> int:
    """The revision that is shown, or what asking for it ends with."""
    try:
        return int(os.getxattr(mount, "user.revision"))
    except OSError as error:
        return -(error.errno or 0)


def error_of(path: Path) -> int:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or 0
    return 0


def test_a_revision_that_is_blacklisted_while_mounted_is_served_no_longer(
    own: tuple[Published, Path],
) -> None:
    repository, mount = own
    assert (mount / "old" / "f").read_bytes() == b"first"
    keeper = pids_serving(mount)[0]
    number = revision_of(mount)
    (repository.etc / "blacklist").write_text(f"<{repository.fqrn} {number + 1}\n")
    wait_until(lambda: revision_of(mount) == -errno.EIO)
    assert error_of(mount / "old" / "g") == errno.EIO
    repository.publish({b"/new": [file("/f", b"second")]})
    wait_until(lambda: not error_of(mount / "new" / "f"))
    assert (mount / "new" / "f").read_bytes() == b"second"
    assert revision_of(mount) == number + 1
    assert pids_serving(mount)[0] == keeper


def test_a_newer_revision_takes_the_place_of_a_blacklisted_one(own: tuple[Published, Path]) -> None:
    repository, mount = own
    servers = pids_serving(mount)
    number = revision_of(mount)
    repository.publish({b"/new": [file("/f", b"second")]})
    (repository.etc / "blacklist").write_text(f"<{repository.fqrn} {number + 1}\n")
    wait_until((mount / "new" / "f").exists)
    assert pids_serving(mount) == servers, "nobody had to end for it"


def test_who_reads_gets_an_error_while_no_server_can_be_started_and_all_is_well_afterwards(
    own: tuple[Published, Path],
) -> None:
    repository, mount = own
    assert (mount / "old" / "f").read_bytes() == b"first"
    keeper, server = pids_serving(mount)
    configuration = repository.etc / "default.local"
    good = configuration.read_text()
    configuration.write_text(good + "CVMFS_REPOSITORY_TAG=there-is-none\n")
    os.kill(server, signal.SIGKILL)
    started = time.monotonic()
    assert error_of(mount / "old" / "g") == errno.EIO
    assert time.monotonic() - started < 5, "the one second of a transfer, and what it takes to notice"
    configuration.write_text(good)
    wait_until(lambda: not error_of(mount / "old" / "g"))
    assert (mount / "old" / "g").read_bytes() == b"unread"
    wait_until(lambda: len(pids_serving(mount)) == 2)
    assert pids_serving(mount)[0] == keeper
    configuration.write_text(good + "CVMFS_REPOSITORY_TAG=there-is-none\n")
    os.kill(pids_serving(mount)[1], signal.SIGKILL)
    wait_until(lambda: len(pids_serving(mount)) >= 2)
    umount(mount)
    wait_until(lambda: not pids_serving(mount))
