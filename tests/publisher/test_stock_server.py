"""Publishing to a repository that ``cvmfs_server`` publishes to as well: its spool directory stays right."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.care.gc import collect_garbage
from cvmfs_graphdriver.publisher.errors import BusyError, PublisherError, StorageError
from cvmfs_graphdriver.publisher.repository import REFLOG, Repository
from cvmfs_graphdriver.publisher.stock_server import StockServer
from cvmfs_graphdriver.publisher.tags import set_tag
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.digest import Digest
from tests.cli.test_repo import run
from tests.support.entries import file
from tests.support.storage_site import FQRN, Site

LOCKS = ("in_transaction.lock", "is_publishing.lock")


class StockSite:
    """A repository with the directories that ``cvmfs_server mkfs`` makes."""

    def __init__(self, tmp_path: Path) -> None:
        self.site = Site(tmp_path)
        self.spool = tmp_path / "spool"
        for name in ("cache", "rdonly", "scratch/current", "tmp"):
            (self.spool / name).mkdir(parents=True)
        self.checksum = self.spool / "reflog.chksum"
        self.checksum.write_text(self.reflog())
        self.conf = tmp_path / "server.conf"
        self.conf.write_text(
            "# Created by cvmfs_server.\n"
            "CVMFS_CREATOR_VERSION=2.12.0\n"
            f"CVMFS_REPOSITORY_NAME={FQRN}\n"
            f"CVMFS_SPOOL_DIR={self.spool}\n"
            "CVMFS_AUTO_REPAIR_MOUNTPOINT=true\n"
        )
        (self.spool / "client.local").write_text(f"CVMFS_ROOT_HASH={self.site.open().manifest().root.text}\n")

    def reflog(self) -> str:
        return Digest.of((self.site.storage / REFLOG).read_bytes()).text

    def open(self) -> Repository:
        repository = self.site.open()
        repository.stock = StockServer.load(self.conf, FQRN)
        return repository

    def left(self) -> set[str]:
        """Everything in the spool directory that was not there before."""
        there = {"cache", "rdonly", "scratch", "tmp", "reflog.chksum", "client.local"}
        return {path.name for path in self.spool.iterdir()} - there


@pytest.fixture
def stock(tmp_path: Path) -> StockSite:
    return StockSite(tmp_path)


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_every_change_writes_the_reflog_s_checksum(stock: StockSite, tmp_path: Path) -> None:
    def is_right() -> bool:
        return stock.checksum.read_text() == stock.reflog()

    for number in range(3):
        stock.site.clock += 1
        with Transaction(stock.open()) as transaction:
            transaction.ingest(b"/l%d" % number, [file("/f", b"%d" % number)])
            transaction.publish()
        assert is_right()
    set_tag(stock.open(), "now")
    assert is_right()
    assert collect_garbage(stock.open(), tmp_path / "index", since=stock.site.clock).forgotten_revisions
    assert is_right()
    assert stock.left() == set()
    assert stock.checksum.stat().st_mode & 0o777 == 0o644


def test_its_locks_are_held_and_released_on_every_path(stock: StockSite) -> None:
    with Transaction(stock.open()) as transaction:
        for name in LOCKS:
            assert (stock.spool / name).read_text() == f"{os.getpid()}\n"
        with pytest.raises(PublisherError):
            transaction.remove(b"/nothing")
    assert stock.left() == set()
    with pytest.raises(PublisherError), Transaction(stock.open()) as transaction:
        transaction.remove(b"/nothing")
    assert stock.left() == set()
    with pytest.raises(BusyError), Transaction(stock.open()), Transaction(stock.open()):
        pass
    assert stock.left() == set()


@pytest.mark.parametrize("holder", [0, os.getpid()])
def test_an_open_transaction_of_cvmfs_server_is_respected(stock: StockSite, holder: int) -> None:
    """Its process has ended long ago; only the file counts."""
    lock = stock.spool / LOCKS[0]
    lock.write_text(f"{holder or dead()}\n")
    before = stock.site.files(), lock.read_bytes()
    with pytest.raises(BusyError, match="cvmfs_server abort"), Transaction(stock.open(), wait=0.3):
        pass
    assert (stock.site.files(), lock.read_bytes()) == before
    assert stock.left() == {LOCKS[0]}
    lock.unlink()
    with Transaction(stock.open()) as transaction:
        transaction.publish()


@pytest.mark.parametrize("form", ["number", "flock"])
def test_a_running_publish_of_cvmfs_server_is_respected(stock: StockSite, form: str) -> None:
    lock = stock.spool / LOCKS[1]
    with lock.open("w") as held:
        if form == "flock":
            fcntl.flock(held, fcntl.LOCK_EX)
        else:
            held.write(f"{os.getpid()}\n")
            held.flush()
        with pytest.raises(BusyError, match="is publishing"), Transaction(stock.open()):
            pass
    assert stock.left() == {LOCKS[1]}


def test_a_publish_that_died_is_no_obstacle(stock: StockSite) -> None:
    for text in (f"{dead()}\n", ""):
        (stock.spool / LOCKS[1]).write_text(text)
        with Transaction(stock.open()) as transaction:
            transaction.publish()
        assert stock.left() == set()


def test_what_a_killed_publisher_of_ours_left_is_no_obstacle(stock: StockSite) -> None:
    number = dead()
    for name in LOCKS:
        (stock.spool / name).write_text(f"{number}\n")
    with Transaction(stock.open()) as transaction:
        transaction.publish()
    assert stock.left() == set()


def test_an_outdated_mount_is_noticed(stock: StockSite) -> None:
    server = StockServer.load(stock.conf, FQRN)
    assert server is not None
    assert not server.outdated(stock.site.open().manifest().root)
    stock.site.publish({b"/l": []})
    assert server.outdated(stock.site.open().manifest().root)


def test_the_commands_say_what_to_do(stock: StockSite) -> None:
    stock.site.publish({b"/l": []})
    place = ("--storage", stock.site.storage, "--keys", stock.site.keys, "--server-conf", stock.conf)
    done = run("repo", "remove", FQRN, *place, "/l")
    assert done.returncode == 0, done.stderr
    assert f"cvmfs_server mount {FQRN}" in done.stderr
    assert stock.checksum.read_text() == stock.reflog()
    (stock.spool / LOCKS[0]).write_text(f"{dead()}\n")
    for verb, words, status in (
        ("tag", ["x"], 42),
        ("rollback", [], 42),
        ("gc", ["--index", stock.spool / "tmp/index"], 42),
        ("resign", [], 0),
    ):
        done = run("repo", verb, FQRN, *place, *words)
        assert done.returncode == status, done.stderr  # resign signs the whitelist alone


def test_configurations_that_do_not_fit(stock: StockSite, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not the configuration of other"):
        StockServer.load(stock.conf, "other.example.org")
    plain = tmp_path / "plain.conf"
    plain.write_text("CVMFS_AUTO_TAG=true\n")
    assert StockServer.load(plain, FQRN) is None
    plain.write_text(f"CVMFS_SPOOL_DIR={tmp_path}/nowhere\n")
    with pytest.raises(StorageError, match="run it where cvmfs_server publishes"):
        StockServer.load(plain, FQRN)
