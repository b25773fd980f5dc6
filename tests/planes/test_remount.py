"""New revisions under a mounted repository, and everything that users hold open meanwhile."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn
from tests.support.entries import directory, file
from tests.support.mounts import end, wait_until
from tests.support.published import Published, published

pytestmark = pytest.mark.root

_LAST = 11
"""The revision after ten remounts."""
_STATS = 10_000


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository", ttl=1) as repository:
        publish(repository, 1)
        yield repository


def publish(repository: Published, number: int) -> None:
    """A revision in which everything below /data says its number; /fixed never changes."""
    content = b"%02d" % number
    trees = {
        b"/data": [
            file("/content", content * 100_000),
            *(file(f"/{number}-{count}", content) for count in range(50)),
            directory("/sub"),
            file("/sub/content", content),
        ]
    }
    if number == 1:
        trees[b"/fixed"] = [file("/file", b"fixed")]
    repository.publish({**trees, b"/only-in-%d" % number: []}, remove=[b"/data"] if number > 1 else [])


@pytest.fixture
def mount(repository: Published, tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "mnt"
    target.mkdir()
    spawn(MountRequest(repository.fqrn, target, repository.etc))
    yield target
    end(target)


def shows(mount: Path, number: int) -> bool:
    return (mount / "data" / "sub" / "content").read_bytes() == b"%02d" % number


def test_a_new_revision_appears_and_old_things_stay(repository: Published, mount: Path) -> None:
    assert not (mount / "only-in-2").exists()
    with (
        (mount / "data" / "content").open("rb") as unread,
        (mount / "data" / "content").open("rb") as half_read,
        os.scandir(mount) as stream,
        ExitStack() as held,
    ):
        of_revisions: list[tuple[bytes, BinaryIO]] = []
        assert half_read.read(50_000) == b"01" * 25_000
        inside = os.open(mount / "data", os.O_RDONLY)
        first = {next(stream).name}
        fixed = os.lstat(mount / "fixed" / "file")
        for number in range(2, _LAST + 1):
            opened: BinaryIO = held.enter_context((mount / "data" / "content").open("rb"))
            publish(repository, number)
            wait_until(lambda expected=number: shows(mount, expected))
            of_revisions.append((b"%02d" % (number - 1) * 100_000, opened))
        assert (mount / f"only-in-{_LAST}").is_dir()
        assert f"only-in-{_LAST}" in os.listdir(mount)
        for content, opened in of_revisions:
            assert opened.read() == content
        assert len(os.listdir(mount / "data")) == 52
        assert unread.read() == b"01" * 100_000
        assert half_read.read() == b"01" * 75_000
        assert first | {entry.name for entry in stream} == {"data", "fixed", "only-in-1"}
        assert set(os.listdir(inside)) == {"content", "sub", *(f"1-{count}" for count in range(50))}
        assert os.stat("sub/content", dir_fd=inside).st_size == 2
        os.close(inside)
        assert (mount / "fixed" / "file").read_bytes() == b"fixed"
        assert os.lstat(mount / "fixed" / "file").st_mtime_ns == fixed.st_mtime_ns


def test_who_looks_during_a_change_sees_one_tree_or_the_other(repository: Published, mount: Path) -> None:
    wrong: list[str] = []
    seen: set[int] = set()
    stats = [0, 0]
    stop = threading.Event()

    def look(which: int) -> None:
        while not stop.is_set():
            try:
                top = os.open(mount / "data", os.O_RDONLY)
            except OSError as error:
                wrong.append(f"open: {error}")
                continue
            try:
                names = os.listdir(top)
                numbers = {int(name.partition("-")[0]) for name in names if "-" in name}
                content = os.stat("sub/content", dir_fd=top)
                if len(numbers) != 1 or len(names) != 52 or content.st_size != 2:
                    wrong.append(f"{numbers} {len(names)}")
                number = numbers.pop()
                for count in range(50):
                    os.stat(f"{number}-{count}", dir_fd=top)
                stats[which] += 51
                seen.add(number)
            except OSError as error:
                wrong.append(str(error))
            finally:
                os.close(top)

    lookers = [threading.Thread(target=look, args=(which,)) for which in range(2)]
    for looker in lookers:
        looker.start()
    try:
        wait_until(lambda: 1 in seen)
        for number in range(2, _LAST + 1):
            publish(repository, number)
            wait_until(lambda expected=number: shows(mount, expected))
            wait_until(lambda expected=number: expected in seen)
        wait_until(lambda: sum(stats) >= _STATS)
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
    assert wrong == []
    assert seen == set(range(1, _LAST + 1))
