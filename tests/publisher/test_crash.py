"""A publisher that is killed, or whose disk is full, leaves the old revision served and the next possible."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import PublisherError, StorageError
from cvmfs_graphdriver.publisher.local import LocalStorage
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.publisher.site import FQRN, Site, file
from tests.support import PROJECT

# Publishes one revision after the other, each with a file that tells its number, until it is killed.
PUBLISHER = """
import sys, random
from pathlib import Path
from cvmfs_graphdriver.publisher import objects
from cvmfs_graphdriver.publisher.local import LocalStorage
from cvmfs_graphdriver.publisher.repository import Repository
from tests.publisher.site import FQRN, file
objects._WORTH_WORKERS = int(sys.argv[3])
repository = Repository.open(FQRN, LocalStorage(Path(sys.argv[1])), Path(sys.argv[2]))
print("ready", flush=True)
while True:
    with Transaction(repository, wait=10) as transaction:
        number = repository.manifest().revision + 1
        content = random.Random(number).randbytes(20_000)
        files = [file(f"/{name}", b"%d %d" % (number, name) + content) for name in range(30)]
        transaction.ingest(b"/layers/%d" % (number % 3), [file("/number", b"%d" % number), *files])
        transaction.publish()
"""


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
    for _ in range(10):
        command = [sys.executable, "-c", PUBLISHER, str(site.storage), str(site.keys), str(workers)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=PROJECT, env={**os.environ, "TMPDIR": str(scratch)}
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                time.sleep(dice.uniform(0, 0.5))
            finally:
                process.send_signal(signal.SIGKILL)
        number = newest(site)
        assert number >= before
        assert site.findings() == []
        if number > 1:
            assert site.tree(b"/layers/%d" % (number % 3))[b"/number"][1] == b"%d" % number
        before = number
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
