"""New revisions under a mounted repository, and everything that users hold open meanwhile."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.keeper import spawn
from cvmfs_graphdriver.planes.request import MountRequest
from tests.planes.published import Published, directory, file, published
from tests.planes.support import end, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Published]:
    with published(tmp_path / "repository", ttl=1) as repository:
        publish(repository, 1)
        yield repository


def publish(repository: Published, number: int) -> None:
    """A revision in which everything below /data says its number; /fixed never changes."""
    content = str(number).encode()
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
    return (mount / "data" / "sub" / "content").read_bytes() == str(number).encode()


def test_a_new_revision_appears_and_old_things_stay(repository: Published, mount: Path) -> None:
    assert not (mount / "only-in-2").exists()
    with (
        (mount / "data" / "content").open("rb") as unread,
        (mount / "data" / "content").open("rb") as half_read,
        os.scandir(mount) as stream,
    ):
        assert half_read.read(50_000) == b"1" * 50_000
        inside = os.open(mount / "data", os.O_RDONLY)
        first = {next(stream).name}
        fixed = os.lstat(mount / "fixed" / "file")
        for number in range(2, 5):
            publish(repository, number)
            wait_until(lambda expected=number: shows(mount, expected))
        assert (mount / "only-in-4").is_dir()
        assert "only-in-4" in os.listdir(mount)
        assert len(os.listdir(mount / "data")) == 52
        assert unread.read() == b"1" * 100_000
        assert half_read.read() == b"1" * 50_000
        assert first | {entry.name for entry in stream} == {"data", "fixed", "only-in-1"}
        assert set(os.listdir(inside)) == {"content", "sub", *(f"1-{count}" for count in range(50))}
        assert os.stat("sub/content", dir_fd=inside).st_size == 1
        os.close(inside)
        assert (mount / "fixed" / "file").read_bytes() == b"fixed"
        assert os.lstat(mount / "fixed" / "file").st_mtime_ns == fixed.st_mtime_ns


def test_who_looks_during_a_change_sees_one_tree_or_the_other(repository: Published, mount: Path) -> None:
    wrong: list[str] = []
    seen: set[int] = set()
    stop = threading.Event()

    def look() -> None:
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
                if len(numbers) != 1 or len(names) != 52 or content.st_size != 1:
                    wrong.append(f"{numbers} {len(names)}")
                number = numbers.pop()
                os.stat(f"{number}-7", dir_fd=top)
                seen.add(number)
            except OSError as error:
                wrong.append(str(error))
            finally:
                os.close(top)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for number in (2, 3):
            publish(repository, number)
            wait_until(lambda expected=number: shows(mount, expected))
        time.sleep(0.3)
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
    assert wrong == []
    assert seen == {1, 2, 3}
