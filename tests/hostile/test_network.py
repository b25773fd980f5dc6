"""What servers can do to a client's time, and what a client shows of the secrets in its configuration."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.addresses import shown_url
from cvmfs_graphdriver.client.administration.metrics import metrics_text
from cvmfs_graphdriver.client.administration.status import status_of
from cvmfs_graphdriver.client.administration.talk import Talk
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.counters import ClientCounters
from cvmfs_graphdriver.client.errors import UnreachableError
from cvmfs_graphdriver.client.network.network import Network
from cvmfs_graphdriver.client.network.transfer import Memory
from cvmfs_graphdriver.client.tree.magic import MagicAttributes
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.planes.report import degraded_row, repository_row
from tests.client.tree.test_revision import mounted


def network_of(server: str, proxy: str = "DIRECT", **overrides: str) -> Network:
    values = {
        "CVMFS_SERVER_URL": server,
        "CVMFS_HTTP_PROXY": proxy,
        "CVMFS_PUBLIC_KEY": "/k",
        "CVMFS_TIMEOUT": "1",
        "CVMFS_TIMEOUT_DIRECT": "1",
        "CVMFS_MAX_RETRIES": "0",
        **overrides,
    }
    return Network(load_settings("a.b", Path("/nowhere"), values).network, ClientCounters(), "me")


@contextmanager
def trickle(head: bytes, piece: bytes) -> Iterator[str]:
    """A server that never ends its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                connection = listener.accept()[0]
                with connection:
                    connection.recv(65536)
                    connection.sendall(head)
                    for _ in range(1000):
                        connection.sendall(piece)
                        time.sleep(0.05)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/cvmfs/a.b"
    thread.join(5)


class Patient(Memory):
    """A sink to which nothing is too much."""

    def write(self, data: bytes) -> None:
        pass


@pytest.mark.parametrize("limit", ["1000", "0"])
def test_a_transfer_ends_however_it_is_drawn_out(limit: str) -> None:
    """It is faster than the low-speed limit all the time, and has no end."""
    with trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000) as server:
        started = time.monotonic()
        network = network_of(server, CVMFS_LOW_SPEED_LIMIT=limit, CVMFS_TIMEOUT_DIRECT="3")
        with closing(network), pytest.raises(UnreachableError, match="timed out after 4"):
            network.transfer.fetch("object", Patient(1000 if limit == "1000" else 1))
        assert 3.9 < time.monotonic() - started < 8


# Secrets

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:s3cret@squid.example.org:3128", "http://squid.example.org:3128"),
        ("http://user:s3@cret@squid:3128/", "http://squid:3128/"),
        ("http://s3cret@[::1]:3128", "http://[::1]:3128"),
        ("http://user:s3/cret@squid:3128", "http://squid:3128"),
        ("user:s3cret@squid:3128", "squid:3128"),
        ("http://squid:3128/cvmfs/@fqrn@?a@b", "http://squid:3128/cvmfs/@fqrn@?a@b"),
        ("DIRECT", "DIRECT"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_errors_do_not_show_passwords(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for proxy in (f"http://u:{SECRET}@127.0.0.1:9", f"http://u:{SECRET}@no.such.name.invalid:1"):
        with closing(network_of(f"http://v:{SECRET}@127.0.0.1:9/cvmfs/a.b", proxy)) as network:
            with pytest.raises(UnreachableError) as raised:
                network.transfer.get("object", 10)
            assert SECRET not in str(raised.value)
            assert not network.sort_by_distance()
    for wrong in (f"http://u:{SECRET}/@squid:1", f"http://u:{SECRET}@squid:port", f"u:{SECRET}@squid:1x"):
        with pytest.raises(CvmfsGraphdriverError) as refused:
            network_of("http://127.0.0.1:9", wrong)
        assert SECRET not in str(refused.value)
        with pytest.raises(CvmfsGraphdriverError) as refused:
            network_of(wrong)
        assert SECRET not in str(refused.value)
    assert SECRET not in caplog.text


def test_nobody_is_told_passwords(tmp_path: Path) -> None:
    with mounted("kitchen-sha1", tmp_path) as (client, revision, server):
        place = server.url.removeprefix("http://")
        proxy = f"http://u:{SECRET}@{place}"
        client.network.set_proxies(proxy, f"http://u:{SECRET}@127.0.0.1:9")
        client.transfer.failover.set_hosts([f"http://v:{SECRET}@{place}/cvmfs/kitchen.test.org"])
        client.transfer.get(".cvmfspublished", 100_000)
        status = status_of(client, "/m")
        attributes = MagicAttributes(client)
        told = [
            json.dumps(status.as_json()),
            metrics_text([status]).decode(),
            str([repository_row(status), degraded_row([status], {})]),
            *(
                repr(attributes.value(revision, revision.top, name, 0))
                for name in (b"user.proxy", b"user.proxy_list", b"user.host", b"user.host_list")
            ),
        ]
        talk = Talk(client, tmp_path)
        told += [talk.answer(command) for command in ("host info", "proxy info")]
        for text in told:
            assert place in text
            assert SECRET not in text
