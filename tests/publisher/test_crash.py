"""A publisher that is killed, or whose disk is full, leaves the old revision served and the next possible."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import PublisherError, StorageError
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.endless_publisher import endless_publisher
from tests.support.entries import file
from tests.support.storage_site import FQRN, Site

KILLS = int(os.environ.get("KILLS", "5"))
"""How many times a publisher is killed; 50 and more for a long night."""


def newest(site: Site) -> int:
    return site.open().manifest().revision


@pytest.mark.parametrize("workers", [0, 1 << 30])
def test_a_publisher_that_is_killed_anywhere(tmp_path: Path, workers: int) -> None:
    site = Site(tmp_path)
    site.clock = time.time()
    site.open().resign()
    dice = random.Random(workers)
    before = newest(site)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(KILLS):
        with endless_publisher(site.storage, site.keys, workers, TMPDIR=str(scratch)) as process:
            time.sleep(dice.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it published until it was killed"
        number = newest(site)
        assert number >= before
        assert site.findings() == []
        if number > 1:
            assert site.tree(b"/layers/%d" % (number % 3))[b"/number"][1] == b"%d" % number
        before = number
    assert before > 1
    with Transaction(site.open(), wait=10) as transaction:
        transaction.ingest(b"/after", [file("/f")])
        transaction.publish()
    assert newest(site) == before + 1
    assert site.findings() == []
    assert [name for name in os.listdir(site.storage / "data/txn") if name != ".lock"] == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system with room for 8 MiB."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


@pytest.mark.root
def test_a_full_disk_is_said_and_leaves_everything_as_it_was(small_disk: Path) -> None:
    site = Site(small_disk)
    site.publish({b"/l": [file("/f", b"one")]})
    before = site.files()
    with pytest.raises(StorageError, match="the disk is full"):
        site.publish({b"/big": [file(f"/{n}", os.urandom(400_000)) for n in range(40)]})
    assert site.files() == before
    assert site.findings() == []
    site.publish({b"/l": [file("/f", b"two")]})
    assert site.tree(b"/l")[b"/f"][1] == b"two"


def publish_if_there_is_room(transaction: Transaction) -> bool:
    try:
        transaction.publish()
    except PublisherError as error:
        if "disk is full" not in str(error):
            raise
        return False
    return True


@pytest.mark.root
@pytest.mark.parametrize("room", [0, 4096, 12_288, 32_768])
def test_a_disk_that_fills_while_a_revision_is_made(small_disk: Path, room: int) -> None:
    site = Site(small_disk)
    site.publish({b"/l": [file("/f", b"one")]})
    before = site.files()
    repository = Repository.open(FQRN, LocalStorage(site.storage), site.keys, site.options)
    ballast = small_disk / "ballast"
    with Transaction(repository) as transaction:
        transaction.ingest(b"/l", [file("/f", b"two")])
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room)))
        published = publish_if_there_is_room(transaction)
    ballast.unlink()
    if published:
        assert site.tree(b"/l")[b"/f"][1] == b"two"
    else:
        assert site.tree(b"/l")[b"/f"][1] == b"one"
        assert {name: data for name, data in site.files().items() if name in before} == {
            **before,
            ".cvmfsreflog": (site.storage / ".cvmfsreflog").read_bytes(),
        }
    assert site.findings() == []
    site.publish({b"/l": [file("/f", b"three")]})
    assert site.tree(b"/l")[b"/f"][1] == b"three"
    assert site.findings() == []
