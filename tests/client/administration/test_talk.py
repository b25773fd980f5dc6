"""Talking to a running client: answers that scripts rely on, the socket, status and metrics."""

import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.status import Status, status_of
from cvmfs_graphdriver.client.administration.talk import Talk
from cvmfs_graphdriver.client.administration.talk_socket import ask, serve_talk
from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.counters import Count
from cvmfs_graphdriver.client.errors import ConfigurationError, TalkError, UnreachableError
from cvmfs_graphdriver.client.network.dns import Resolver
from cvmfs_graphdriver.client.tree.revision import Revision
from tests.client.tree.test_revision import mounted, read, walk
from tests.support.fixtures import Server
from tests.support.mutations import INPUTS, mutations
from tests.support.nameserver import name_server, records
from tests.support.project import FAST


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Talk, Client, Revision, Server]]:
    with mounted("kitchen-sha1", tmp_path) as (client, revision, server):
        for node in walk(revision, revision.top):
            if node.entry.is_regular:
                read(revision, node)
        yield Talk(client, tmp_path), client, revision, server


Running = tuple[Talk, Client, Revision, Server]


def test_answers(running: Running, tmp_path: Path) -> None:
    talk, client, revision, server = running
    host = f"{server.url}/cvmfs/kitchen.test.org"
    used, pinned = client.cache.eviction.usage() if client.cache.eviction else (0, 0)
    for command, answer in {
        "revision": "7\n",
        "pid": f"{os.getpid()}\n",
        "mountpoint": f"{tmp_path}\n",
        "host info": f"  [0] {host} (unprobed)\nActive host 0: {host}\n",
        "proxy info": "Load-balance groups:\n[0] DIRECT\nActive proxy: [0] DIRECT\n",
        "timeout info": "Timeout with proxy: 2s\nTimeout without proxy: 2s\n",
        "cache size": f"Current cache size is {used >> 20}MB ({used} Bytes), pinned: 0MB (0 Bytes)\n",
        "cache limit get": "4000\n",
        "cache instance": f"{client.cache.directory}\n",
        "cache list pinned": "",
        "cleanup rate 60": "0\n",
        "max ttl info": "unset\n",
        "nameserver get": "unset\n",
        "remount": "Catalog up to date\n",
        "remount sync": "Catalog up to date\n",
        "host probe geo": "Failed\n",
        "reset error counters": "OK\n",
        "detach nested catalogs": "OK\n",
        "version patchlevel": "0\n",
        "": "unknown command\n",
        "nonsense": "unknown command\n",
        "external host info": "unknown command\n",
        "tear down to read-only": "unknown command\n",
    }.items():
        assert talk.answer(command) == answer, command
    assert pinned == 0
    assert re.fullmatch(r"\d+:\d+\n", talk.answer("device id\n"))
    assert "file /.cvmfsdirtab, object\n" in talk.answer("cache list")
    assert "catalog of /,\n" in talk.answer("cache list catalogs\0")
    assert f"/ {revision.root}\n" in talk.answer("open catalogs") or not client.catalogs.open_mounts()
    assert "CVMFS_TIMEOUT=2    # from " in talk.answer("parameters")
    assert "default.local:" in talk.answer("parameters")
    assert talk.answer("latency").startswith("seconds,downloads\n0.001,")
    assert "revision: 7\n" in talk.answer("internal affairs")


def test_changes(running: Running) -> None:
    talk, client, revision, server = running
    transfer, quota = client.transfer, client.cache.eviction
    assert quota is not None
    for command in (
        "cache limit set 2000",
        "max ttl set 5",
        "timeout set 7 8.5",
        "host set http://one/;http://two",
        "host switch",
        "proxy set http://p:1|http://q:1;http://r:1",
        "proxy fallback http://f:1",
        "proxy group switch",
        "proxy rebalance",
        "cleanup 5",
    ):
        assert talk.answer(command) == "OK\n", command
    assert quota.limit == 2000 * 1024 * 1024
    assert talk.answer("max ttl info") == "5 minutes\n"
    assert (transfer.timeout, transfer.timeout_direct) == (7, 8.5)
    assert transfer.failover.hosts == ("http://one", "http://two")
    assert talk.answer("host info").endswith("Active host 1: http://two\n")
    assert talk.answer("proxy info").splitlines() == [
        "Load-balance groups:",
        "[0] http://p:1, http://q:1",
        "[1] http://r:1",
        "[2] http://f:1",
        "Active proxy: [1] http://r:1",
        "First fallback group: [2]",
    ]
    assert quota.used <= 5 * 1024 * 1024
    del revision, server


def test_refusals(running: Running) -> None:
    talk = running[0]
    for command, answer in {
        "cache limit set 999": "Failed: the limit must be at least 1000 MB\n",
        "cache limit set x": "Failed: 'x' is not a valid number\n",
        "cleanup -1": "Failed: '-1' is not a valid number\n",
        "timeout set 1": "Failed: usage: timeout set <proxy> <direct>\n",
        "timeout set 0 1": "Failed: a timeout must be more than 0 seconds\n",
        "host set nonsense": "Failed: usage: host set <URL>[;<URL>...]\n",
        "evict /no/such/file": "No such regular file\n",
        "evict /links": "No such regular file\n",
        "pin /links": "No such regular file\n",
    }.items():
        assert talk.answer(command) == answer, command


def test_evict_and_pin(running: Running) -> None:
    talk, client, revision, _ = running
    node = revision.lookup(b"/.cvmfsdirtab")
    assert node is not None
    assert node.entry.digest is not None
    path = Path(client.cache.path(node.entry.digest))
    assert path.exists()
    assert talk.answer("evict /.cvmfsdirtab") == "OK\n"
    assert not path.exists()
    assert talk.answer("pin /.cvmfsdirtab") == "OK\n"
    assert path.exists()
    assert talk.answer("cache list pinned") == "file /.cvmfsdirtab, object\n"
    assert talk.answer("cleanup 0") == "Not fully cleaned (there might be pinned chunks)\n"
    assert path.exists()
    assert talk.answer("evict /.cvmfsdirtab") == "OK\n"


def test_chunked_files_are_evicted_and_pinned_whole(tmp_path: Path) -> None:
    with mounted("lite-sha1-zlib", tmp_path) as (client, revision, _):
        talk = Talk(client, tmp_path)
        node = next(node for node in walk(revision, revision.top) if node.entry.is_chunked)
        chunks = node.mount.catalog.chunks(node.path)
        name = node.path.decode()
        assert talk.answer(f"pin {name}") == "OK\n"
        assert all(Path(client.cache.path(chunk.digest)).exists() for chunk in chunks)
        assert talk.answer("cache list pinned").count(f"file {name}, chunk") == len(chunks)
        assert talk.answer(f"evict {name}") == "OK\n"
        assert not any(Path(client.cache.path(chunk.digest)).exists() for chunk in chunks)


def test_external_servers(tmp_path: Path) -> None:
    with mounted("external", tmp_path) as (client, _, server):
        talk = Talk(client, tmp_path)
        assert talk.answer("external host info").endswith(f"Active host 0: {server.url}/external\n")
        assert "Active proxy: [0] DIRECT" in talk.answer("external proxy info")


def test_without_a_quota(tmp_path: Path) -> None:
    with mounted("gc", tmp_path, CVMFS_QUOTA_LIMIT="-1") as (client, revision, _):
        talk = Talk(client, tmp_path)
        assert talk.answer("cache size") == "Failed: this cache has no quota\n"
        assert talk.answer("cleanup rate 5") == "-1\n"
        assert revision.magic_xattr(revision.top, b"user.ncleanup24") == b"-1"
        assert status_of(client, "").cache_limit == -1


# Status and metrics


def test_status_survives_the_wire(running: Running) -> None:
    talk, client, revision, _ = running
    status = Status.parse(talk.answer("status json"))
    assert (status.fqrn, status.revision, status.root_hash) == ("kitchen.test.org", 7, str(revision.root))
    assert status.counters[Count.DOWNLOADS] == client.counters[Count.DOWNLOADS] > 100
    assert 200 < status.next_refresh <= 240
    assert status.cache_used > 9_000_000
    assert status.published == 1795458710
    for text in ("", "[]", "{}", json.dumps({**status.as_json(), "more": 1})):
        with pytest.raises(ValueError, match="version|Expecting"):
            Status.parse(text)


def test_metrics_are_what_prometheus_reads(running: Running) -> None:
    talk, client, _, server = running
    families = {
        family.name: family for family in text_string_to_metric_families(talk.answer("metrics prometheus"))
    }
    prefix = "cvmfs_graphdriver"

    def value(name: str, **labels: str) -> float:
        (sample,) = [
            sample
            for family in families.values()
            for sample in family.samples
            if sample.name == f"{prefix}_{name}" and labels.items() <= sample.labels.items()
        ]
        return float(sample.value)

    assert value("revision", repository="kitchen.test.org") == 7
    assert value("downloads_total") == client.counters[Count.DOWNLOADS]
    assert value("received_bytes_total") == client.counters[Count.BYTES_RECEIVED]
    assert value("download_seconds_count") == client.counters[Count.DOWNLOADS]
    assert value("download_seconds_bucket", le="+Inf") == client.counters[Count.DOWNLOADS]
    host = f"{server.url}/cvmfs/kitchen.test.org"
    assert value("host_active", host=host) == 1
    assert value("proxy_active", proxy="DIRECT", group="0") == 1
    assert value("offline") == 0
    assert value("source_objects_total", source="host", via=host) == client.counters[Count.DOWNLOADS]
    assert value("source_bytes_total", source="host", via=host) == client.counters[Count.BYTES_RECEIVED]
    assert value("source_objects_total", source="cache") == client.counters[Count.HITS] > 0
    assert value("source_bytes_total", source="cache") > 0
    hits, misses = client.counters[Count.HITS], client.counters[Count.MISSES]
    assert value("cache_hit_ratio") == pytest.approx(hits / (hits + misses))
    assert value("revision_age_seconds") == pytest.approx(time.time() - 1795458710, abs=60)
    client.network.set_proxies("http://127.0.0.1:1|http://127.0.0.1:2", "")
    first = client.transfer.failover.current_proxy.url
    client.transfer.switch_group()
    assert f'proxy_burned{{group="0",proxy="{first}",repository="kitchen.test.org"}} 0.0' in talk.answer(
        "metrics prometheus"
    )
    burned = replace(status_of(client, ""), burned_proxies=1)
    lines = metrics_text([burned]).decode().splitlines()
    assert sum("proxy_burned{" in line and line.endswith(" 1.0") for line in lines) == 1
    for _ in range(3):
        client.counters.add_failure("HOST_SHORT")
    two = [status_of(client, "/a"), status_of(client, "/b")]
    assert b'transfer_failures_total{kind="host_short",repository="kitchen.test.org"} 3.0' in metrics_text(
        two[:1]
    )


# The socket


def test_socket(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100) / "cvmfs_io.test"
    path.parent.mkdir()
    (tmp_path / "short").symlink_to(path)
    for _ in range(2):
        with serve_talk(path, lambda command: f"<{command.strip()}>" * 100_000):
            assert path.stat().st_mode & 0o777 == 0o660
            assert ask(path, "hello world") == "<hello world>" * 100_000
            with socket.socket(socket.AF_UNIX) as idle:
                idle.connect(str(tmp_path / "short"))
                idle.shutdown(socket.SHUT_WR)
                assert idle.recv(2) == b"<>"
            with pytest.raises(TalkError, match="longer than 511"):
                ask(path, "x" * 600)
            with socket.socket(socket.AF_UNIX) as talker:
                talker.connect(str(tmp_path / "short"))
                talker.sendall(b"x" * 5000 + b"\n")
                assert talker.recv(20) == b"<" + b"x" * 19
        assert not path.exists()
    with pytest.raises(TalkError, match="is it mounted"):
        ask(path, "hello")
    with (
        pytest.raises(ConfigurationError, match="no such user"),
        serve_talk(path, str, "nobody-of-that-name"),
    ):
        pass
    with pytest.raises(TalkError, match="cannot create"), serve_talk(tmp_path / "absent" / "x", str):
        pass


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serve_talk(path, str, "root"):
        assert ask(path, "x") == "x\n"
    path.write_text("no socket")
    with serve_talk(path, str):
        assert ask(path, "x") == "x\n"


def test_a_client_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    release = threading.Event()

    def answer(_: str) -> str:
        release.wait(5)
        return "late"

    with serve_talk(path, answer):
        with pytest.raises(TalkError, match="no answer within"):
            ask(path, "x", seconds=0.1)
        release.set()


COMMANDS = [
    *(
        "cache size",
        "cache list pinned",
        "cache limit set 1000",
        "cleanup rate 60",
        "cleanup 5000",
        "evict /dir/f",
    ),
    *(
        "evict /\xc3\xa4",
        "mountpoint",
        "max ttl set 5",
        "timeout set 5 10",
        "timeout set 1e3 0",
        "nameserver get",
    ),
    *("nameserver set 127.0.0.1:53", "nameserver set [::1]:53", "host info", "host switch", "open catalogs"),
    *("host set http://127.0.0.1:1/a;http://[::1]:1", "proxy info", "proxy rebalance", "proxy group switch"),
    *("proxy set http://[::1]:3128|DIRECT;http://127.0.0.1:1", "proxy fallback 127.0.0.1:1|127.0.0.2:1"),
    *("evict /dir/f", "detach nested catalogs", "revision", "reset error counters", "pid", "device id"),
]


def unreachable(*_: object) -> None:
    raise UnreachableError("no network")


@pytest.mark.fuzz
def test_any_command_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for the names and at the addresses that damage makes: this is about commands."""
    monkeypatch.setattr(Resolver, "_ask", lambda *_: ((), 0.0))
    monkeypatch.setattr(Resolver, "_ask_system", lambda *_: ((), 0.0))
    known = 0
    with (
        tempfile.TemporaryDirectory(dir=FAST) as directory,
        mounted("empty", Path(directory)) as (client, *_),
    ):
        monkeypatch.setattr(client.transfer, "finish", unreachable)
        talk = Talk(client, Path(directory))
        for data in mutations([command.encode() for command in COMMANDS]):
            line = data[:512].decode("utf-8", "surrogateescape")
            if line.startswith(("pin", "remount", "host probe", "metrics")):
                continue  # these need a server, or time
            answer = talk.answer(line)
            assert not answer or answer.endswith("\n"), "whole lines, or none for an empty list"
            known += answer not in {"unknown command\n", ""}
    assert known > INPUTS / 10


@pytest.mark.parametrize(
    "command",
    [
        "host set http://[::1",
        "host set http://h\xc3\xb6",
        "host set http://a;b",
        "host set http://a:port",
        "proxy set http://[",
        "proxy set a:99999999",
        "proxy set \udcff",
        "proxy fallback ]",
        "nameserver set nobody",
        "nameserver set 1.2.3.4:x",
        "nameserver set ",
    ],
)
def test_what_is_no_address_is_refused_and_changes_nothing(command: str, running: Running) -> None:
    talk, client, _, _ = running
    before = [talk.answer(question) for question in ("host info", "proxy info", "nameserver get")]
    assert talk.answer(command).startswith("Failed: ")
    assert [talk.answer(question) for question in ("host info", "proxy info", "nameserver get")] == before
    assert (client.network.proxies, client.network.fallback_proxies) == ("DIRECT", "")


def test_probing_sorts_servers_by_how_quickly_they_answer(running: Running) -> None:
    talk, _, _, server = running
    good = f"{server.url}/cvmfs/kitchen.test.org"
    assert talk.answer(f"host set http://127.0.0.1:1/dead;{good}") == "OK\n"
    assert talk.answer("host probe") == "OK\n"
    first, second, active, _ = talk.answer("host info").split("\n")
    assert re.fullmatch(rf"  \[0\] {re.escape(good)} \(\d+ ms\)", first)
    assert (second, active) == ("  [1] http://127.0.0.1:1/dead (host down)", f"Active host 0: {good}")


def test_the_name_server_can_be_changed(running: Running) -> None:
    talk, client, _, _ = running
    with name_server(records({1: [(60, b"\x7f\0\0\x09")]})) as place:
        assert talk.answer(f"nameserver set {place}") == "OK\n"
        assert talk.answer("nameserver get") == f"{place}\n"
        assert talk.answer("proxy set http://squid.test:3128") == "OK\n"
        assert talk.answer("proxy info").startswith("Load-balance groups:\n[0] http://127.0.0.9:3128\n")
    assert client.network.nameserver == place
