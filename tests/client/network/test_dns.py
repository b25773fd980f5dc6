"""Names to addresses: messages, a name server that answers, does not, or lies."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.network.dns import Addresses, Resolver
from cvmfs_graphdriver.client.network.proxies import ProxyGroups, proxy_groups
from cvmfs_graphdriver.client.network.proxy_names import ProxyNames
from tests.support.mutations import INPUTS, mutations
from tests.support.nameserver import Reply, answer, name_server, records


def _settings(tmp_path: Path, **overrides: str) -> NetworkSettings:
    values = {
        "CVMFS_SERVER_URL": "http://s",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PUBLIC_KEY": "/k",
        **overrides,
    }
    return load_settings("a.b", tmp_path, values).network


V4, V6 = socket.inet_aton("10.0.0.7"), socket.inet_pton(socket.AF_INET6, "2001:db8::7")


def test_a_name_server_of_ones_own_is_asked(tmp_path: Path) -> None:
    other = socket.inet_aton("10.0.0.8")
    with name_server(records({1: [(600, V4), (90, other)], 28: [(700, V6)]})) as server:
        found = Resolver(_settings(tmp_path, CVMFS_DNS_SERVER=server)).resolve("squid.example.org")
        assert found.found == ("10.0.0.7", "10.0.0.8")
        assert 80 < found.expires - time.monotonic() <= 90
        six = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_IPFAMILY_PREFER="6")
        assert Resolver(six).resolve("squid.example.org").found == ("2001:db8::7",)
        one = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_MAX_IPADDR_PER_PROXY="1")
        assert Resolver(one).resolve("squid.example.org").found == ("10.0.0.7",)


def test_family_that_is_not_there_and_limits_of_ttl(tmp_path: Path) -> None:
    with name_server(records({28: [(5, V6)]})) as server:
        found = Resolver(_settings(tmp_path, CVMFS_DNS_SERVER=server)).resolve("squid.example.org")
        assert found.found == ("2001:db8::7",)
        assert 55 < found.expires - time.monotonic() <= 60
        limits = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_MIN_TTL="1", CVMFS_DNS_MAX_TTL="3")
        assert Resolver(limits).resolve("x.org").expires - time.monotonic() <= 3


def test_name_servers_that_do_not_help(tmp_path: Path) -> None:
    replies: list[Reply] = [
        lambda _: None,
        lambda question: question,
        lambda question: question[:5],
        lambda question: b"\0\0" + answer(question, [(1, 60, V4)])[2:],
        lambda question: answer(question, [(1, 60, b"\x0a")]),
        lambda question: answer(question, [(1, 60, V4)], flags=0x8380),
        lambda question: answer(question, [], flags=0x8183),
    ]
    for reply in replies:
        with name_server(reply) as server:
            wanted = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_TIMEOUT="0.05")
            started = time.monotonic()
            assert Resolver(wanted).resolve("squid.example.org").found == ()
            assert time.monotonic() - started < 2


def test_lost_questions_are_repeated(tmp_path: Path) -> None:
    answers = records({1: [(60, V4)], 28: [(60, V6)]})
    seen: list[bytes] = []

    def reply(question: bytes) -> bytes | None:
        kind = question[-4:-2]
        seen.append(kind)
        return answers(question) if seen.count(kind) > 1 else None

    with name_server(reply) as server:
        wanted = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_TIMEOUT="0.1")
        assert Resolver(wanted).resolve("squid.example.org").found == ("10.0.0.7",)


def test_addresses_and_system_names(tmp_path: Path) -> None:
    resolver = Resolver(_settings(tmp_path))
    assert resolver.resolve("10.1.2.3") == Addresses(("10.1.2.3",), float("inf"))
    assert resolver.resolve("[::1]").found == ("::1",)
    assert resolver.resolve("localhost").found == ("127.0.0.1",)
    assert resolver.resolve("no.such.name.invalid").found == ()
    assert resolver.resolve("x" * 300).found == ()


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5), "h\u00e9" * 100, "a\0b", "\ud800", "a b"]
)
def test_invalid_names_do_not_resolve(name: str, tmp_path: Path) -> None:
    with name_server(records({})) as server:
        wanted = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_TIMEOUT="0.2")
        assert Resolver(wanted).resolve(name).found == ()


def test_truncated_answers_are_fetched_by_tcp(tmp_path: Path) -> None:
    many = [(60, socket.inet_aton(f"10.0.1.{number}")) for number in range(200)]

    def truncated(question: bytes) -> bytes:
        return answer(question, [], flags=0x8380)

    with name_server(truncated, records({1: many, 28: [(70, V6)]})) as server:
        found = Resolver(_settings(tmp_path, CVMFS_DNS_SERVER=server)).resolve("squid.example.org").found
        assert found == tuple(f"10.0.1.{number}" for number in range(200))


def test_all_tries_together_end(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def reply(question: bytes) -> None:
        seen.append(question)

    with name_server(reply) as server:
        wanted = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_TIMEOUT="0.1", CVMFS_DNS_RETRIES="4")
        started = time.monotonic()
        assert Resolver(wanted).resolve("squid.example.org").found == ()
        assert 0.1 <= time.monotonic() - started < 2
        assert len(seen) >= 4


def test_answers_for_other_names_and_aliases(tmp_path: Path) -> None:
    """Records of other kinds among the addresses are passed over."""
    alias = (5, 60, b"\x05alias\x07example\x03org\0")
    with name_server(lambda question: answer(question, [alias, (1, 90, V4)])) as server:
        found = Resolver(_settings(tmp_path, CVMFS_DNS_SERVER=server)).resolve("squid.example.org")
        assert found.found == ("10.0.0.7",)


def test_many_threads_ask_at_once(tmp_path: Path) -> None:
    with name_server(records({1: [(60, V4)]})) as server, ThreadPoolExecutor(8) as pool:
        resolver = Resolver(_settings(tmp_path, CVMFS_DNS_SERVER=server))
        found = pool.map(resolver.resolve, [f"squid{number}.example.org" for number in range(100)])
        assert {addresses.found for addresses in found} == {("10.0.0.7",)}


@pytest.mark.fuzz
def test_no_answer_surprises(tmp_path: Path) -> None:
    """Damaged datagrams are refused or understood; each question has another one."""
    question = b"\0\7\x01\0\0\1\0\0\0\0\0\0\5squid\7example\3org\0\0\1\0\1"
    damaged = mutations([answer(question, [(1, 60, V4), (28, 70, V6)])[2:]])

    def reply(question: bytes) -> bytes:
        return question[:2] + next(damaged)

    with name_server(reply) as server:
        wanted = _settings(tmp_path, CVMFS_DNS_SERVER=server, CVMFS_DNS_TIMEOUT="0.01", CVMFS_DNS_RETRIES="0")
        for _ in range(INPUTS // 100):
            assert isinstance(Resolver(wanted).resolve("squid.example.org").found, tuple)


# Proxies by address


def test_each_address_is_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"squid": ("10.0.0.1", "2001:db8::1"), "other": ()}
    names = ProxyNames(
        proxy_groups("http://squid:3128|http://u:p@squid;https://squid:1;DIRECT;http://other:1"),
        lambda name: Addresses(known[name], time.monotonic() + 60),
        lambda _: None,
    )
    assert [[proxy.url for proxy in group] for group in names.groups.groups] == [
        [
            "http://10.0.0.1:3128",
            "http://[2001:db8::1]:3128",
            "http://u:p@10.0.0.1",
            "http://u:p@[2001:db8::1]",
        ],
        ["https://squid:1"],
        ["DIRECT"],
        ["http://other:1"],
    ]
    assert names.groups.groups[0][0].name == "http://squid:3128"


def test_names_are_resolved_again_when_they_expire() -> None:
    answers = [("10.0.0.1",), ("10.0.0.2",), (), ("10.0.0.3",)]
    changes: list[ProxyGroups] = []
    changed = threading.Event()

    def resolve(_: str) -> Addresses:
        return Addresses(answers.pop(0), time.monotonic() - 1)

    def note(groups: ProxyGroups) -> None:
        changes.append(groups)
        changed.set()

    names = ProxyNames(proxy_groups("http://squid:3128"), resolve, note)
    assert names.groups.groups[0][0].url == "http://10.0.0.1:3128"
    for expected in ("10.0.0.2", "10.0.0.3"):
        changed.clear()
        for _ in range(50):
            names.poll()
            if changed.wait(0.05):
                break
        assert names.groups.groups[0][0].url == f"http://{expected}:3128"
    assert changes[-1] == names.groups
    assert not answers
