"""One thing fails while somebody reads: nothing wrong is read, and what can be served is served."""

import errno
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.disks import loop_disk
from tests.reliability.conftest import Record
from tests.reliability.site import Reader, Site, damage_objects, fill
from tests.support.daemons import Daemon, squid
from tests.support.mounts import pids_serving, wait_until
from tests.support.nameserver import name_server, records

pytestmark = pytest.mark.root

OUTAGE = float(os.environ.get("OUTAGE", "10"))
"""Seconds for which everything is down: many times the longest that anything waits for."""
KILLS = int(os.environ.get("KILLS", "25"))
"""Each costs the second that a keeper waits from the seventh on."""
_WHILE = 3.0
_WITHIN = 8.0
"""Seconds in which a read must end, well or not: both servers, twice each, with their pauses."""

Deed = Callable[[], object]


def survive(
    what: str, reader: Reader, fault: Deed, repair: Deed, record: Record, *, loses: bool = False
) -> None:
    """Read while it lasts, and after; ``loses``: reads may be refused meanwhile."""
    reader.take()
    fault()
    try:
        time.sleep(_WHILE)
        meanwhile = reader.take()
    finally:
        repair()
    after = reader.wait_for_whole_pass()
    assert not reader.wrong
    assert set(meanwhile.errors) <= ({errno.EIO} if loses else set()), meanwhile
    assert meanwhile.slowest < _WITHIN
    assert meanwhile.right or loses
    record(what, meanwhile, after)


def test_a_proxy_dies(site: Site, proxies: list[Daemon], record: Record) -> None:
    with site.mounted(CVMFS_HTTP_PROXY=f"{proxies[0].url};{proxies[1].url}") as reader:
        survive("the proxy in use dies", reader, proxies[0].kill, proxies[0].start, record)


def test_a_proxy_hangs(site: Site, proxies: list[Daemon], record: Record) -> None:
    with site.mounted(CVMFS_HTTP_PROXY=f"{proxies[0].url};{proxies[1].url}") as reader:
        survive("the proxy in use hangs", reader, proxies[0].freeze, proxies[0].thaw, record)


def test_all_proxies_of_a_group_die(site: Site, proxies: list[Daemon], record: Record) -> None:
    def kill() -> None:
        for proxy in proxies:
            proxy.kill()

    def start() -> None:
        for proxy in proxies:
            proxy.start()

    with site.mounted(CVMFS_HTTP_PROXY=f"{proxies[0].url}|{proxies[1].url};DIRECT") as reader:
        survive("all proxies of a group die", reader, kill, start, record)


def test_the_first_server_dies(site: Site, record: Record) -> None:
    with site.mounted() as reader:
        survive("the first server dies", reader, site.servers[0].kill, site.servers[0].start, record)


def test_the_first_server_hangs(site: Site, record: Record) -> None:
    with site.mounted() as reader:
        survive("the first server hangs", reader, site.servers[0].freeze, site.servers[0].thaw, record)


def test_the_first_server_fails(site: Site, first_server: Path, record: Record) -> None:
    flag = first_server / "fail"
    with site.mounted() as reader:
        survive("the first server answers 500", reader, flag.touch, flag.unlink, record)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "the first server answers 404": lambda _: None,
    "the first server answers garbage": lambda _: b"<html>this is no object</html>" * 40,
    "the first server answers the right length of wrong bytes": lambda data: (
        data[:-1] + bytes([data[-1] ^ 1]) if data else b""
    ),
    "the first server answers half of each object": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("what", DAMAGES)
def test_the_first_server_has_lost_its_objects(what: str, site: Site, storage: Path, record: Record) -> None:
    repairs: list[Deed] = []
    with site.mounted() as reader:
        survive(
            what,
            reader,
            lambda: repairs.append(damage_objects(storage, DAMAGES[what])),
            lambda: [repair() for repair in repairs],
            record,
        )


def test_the_name_of_a_proxy_gets_another_address(site: Site, tmp_path: Path, record: Record) -> None:
    at = ["127.0.0.2"]

    def resolve(question: bytes) -> bytes:
        return records({1: [(1, socket.inet_aton(at[0]))]})(question)

    with (
        squid(tmp_path / "old", address="127.0.0.2") as old,
        squid(tmp_path / "new", address="127.0.0.3", port=old.port) as new,
        name_server(resolve) as asked,
        site.mounted(
            CVMFS_HTTP_PROXY=f"http://proxy.example.org:{old.port}",
            CVMFS_DNS_SERVER=asked,
            CVMFS_DNS_MIN_TTL="1",
        ) as reader,
    ):

        def move() -> None:
            at[0] = "127.0.0.3"
            old.kill()

        what = "the name of the only proxy gets another address"
        survive(what, reader, move, lambda: None, record, loses=True)
        new.freeze()  # so it is the one in use
        time.sleep(0.5)
        reader.take()
        time.sleep(2)
        assert reader.take().right == 0
        new.thaw()
        reader.wait_for_whole_pass()


def test_everything_is_down_and_returns(site: Site, proxies: list[Daemon], record: Record) -> None:
    daemons = (*site.servers, *proxies)
    with site.mounted(CVMFS_HTTP_PROXY=f"{proxies[0].url}|{proxies[1].url}") as reader:
        for daemon in daemons:
            daemon.kill()
        time.sleep(1)
        reader.take()
        time.sleep(OUTAGE)
        meanwhile = reader.take()
        for daemon in daemons:
            daemon.start()
        after = reader.wait_for_whole_pass()
    assert not reader.wrong
    assert set(meanwhile.errors) == {errno.EIO}
    assert meanwhile.slowest < _WITHIN
    assert after < 5
    record(f"everything is down for {OUTAGE:.0f} s, nothing is cached", meanwhile, after)


def test_what_is_cached_is_served_while_everything_is_down(site: Site, record: Record) -> None:
    with site.mounted() as reader:
        reader.wait_for_whole_pass()
        site.cold = False
        reader.wait_for_whole_pass()

        def kill() -> None:
            for server in site.servers:
                server.kill()
            Path("/proc/sys/vm/drop_caches").write_text("3\n")

        def start() -> None:
            for server in site.servers:
                server.start()

        survive("everything is down, all is cached", reader, kill, start, record)


def test_the_disk_is_full(site: Site, tmp_path: Path, record: Record) -> None:
    with loop_disk(tmp_path / "cache", 64 << 20), site.mounted() as reader:
        ballast: list[Path] = []

        def crowd() -> None:
            site.forget()
            ballast.append(fill(tmp_path / "cache"))
            site.forget()

        survive(
            "the disk of the cache is full",
            reader,
            crowd,
            lambda: ballast.pop().unlink(),
            record,
            loses=True,
        )


@pytest.mark.parametrize("way", ["deleted", "cut off"])
def test_cache_files_are_lost(way: str, site: Site, record: Record) -> None:
    choose = random.Random(5)
    site.cold = False
    with site.mounted() as reader:
        ended = time.monotonic() + _WHILE

        def spoil() -> None:
            while time.monotonic() < ended:
                for path in site.cache.glob("[0-9a-f][0-9a-f]/*"):
                    try:
                        if choose.random() < 0.5:
                            continue
                        if way == "deleted":
                            path.unlink()
                        else:
                            os.truncate(path, path.stat().st_size // 2)
                    except FileNotFoundError:
                        continue
                Path("/proc/sys/vm/drop_caches").write_text("1\n")
                time.sleep(0.2)

        survive(f"files of the cache are {way} underneath", reader, spoil, lambda: None, record, loses=True)


def test_the_server_process_is_killed(site: Site, record: Record) -> None:
    choose = random.Random(7)
    with site.mounted() as reader:
        keeper = pids_serving(site.mount)[0]
        dead: set[int] = {keeper}
        reader.take()
        for _ in range(KILLS):
            wait_until(lambda: set(pids_serving(site.mount)) - dead)
            time.sleep(choose.uniform(0, 0.4))
            (server,) = set(pids_serving(site.mount)) - dead
            os.kill(server, signal.SIGKILL)
            dead.add(server)
        meanwhile = reader.take()
        after = reader.wait_for_whole_pass()
        assert pids_serving(site.mount)[0] == keeper
    assert not reader.wrong
    assert not meanwhile.errors
    record(f"the process that serves the mount is killed {KILLS} times", meanwhile, after)
