"""Names to addresses: messages, a name server that answers, does not, or lies."""

import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.client.configuration.settings import NetworkSettings, load_settings
from cvmfs_graphdriver.client.network.dns import Addresses, Resolver, decode_answer, encode_question
from cvmfs_graphdriver.client.network.proxies import ProxyGroups, proxy_groups
from cvmfs_graphdriver.client.network.proxy_names import ProxyNames
from tests.support.mutations import generated
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
        lambda question: answer(question, [(1, 60, b"toolong")]),
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
    answers = records({1: [(60, V4)]})
    seen: list[bytes] = []

    def reply(question: bytes) -> bytes | None:
        seen.append(question)
        return answers(question) if len(seen) % 2 == 0 else None

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


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="no host name"):
        encode_question(1, name, 1)


@generated
@given(data=st.binary(max_size=80))
def test_any_datagram_is_decoded_or_refused(data: bytes) -> None:
    for datagram in (data, b"\x00\x07\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00" + data):
        try:
            found = decode_answer(datagram, 7, 1)
        except ValueError:
            continue
        assert all(isinstance(address, str) and ttl >= 0 for address, ttl in found)


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
