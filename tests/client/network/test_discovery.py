"""Finding proxies: lists, the environment, proxy configuration files."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.configuration.network import NetworkSettings
from cvmfs_graphdriver.client.counters import ClientCounters
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.client.network.discovery import find_groups
from tests.support.fixtures import Server, serve


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Two files that work, and two that do not."""
    monkeypatch.delenv("http_proxy", raising=False)
    (tmp_path / "wpad.dat").write_text(
        "function FindProxyForURL(u, h) { return 'PROXY ' + h + '.invalid:1; DIRECT'; }"
    )
    (tmp_path / "query?site=a").write_text("function FindProxyForURL(u, h) { return 'DIRECT'; }")
    (tmp_path / "bad").write_text("no script")
    (tmp_path / "empty").write_text("function FindProxyForURL(u, h) { return ''; }")
    with serve(tmp_path) as server:
        yield server


def _settings(*urls: str) -> NetworkSettings:
    values = {
        "CVMFS_SERVER_URL": "http://s/cvmfs/@fqrn@",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PUBLIC_KEY": "/k",
        "CVMFS_PAC_URLS": ";".join(urls),
        "CVMFS_TIMEOUT_DIRECT": "1",
        "CVMFS_BACKOFF_INIT": "0.01",
        "CVMFS_BACKOFF_MAX": "0.02",
    }
    return load_settings("a.b", Path("/nowhere"), values).network


def _find(regular: str, *urls: str, fallback: str = "") -> list[str]:
    groups = find_groups(regular, fallback, _settings(*urls), ClientCounters())
    return ["|".join(proxy.url for proxy in group) for group in groups.groups]


def test_lists_stay_what_they_are() -> None:
    assert _find("a:1|b:2;DIRECT") == ["http://a:1|http://b:2", "DIRECT"]
    assert _find("a:1;DIRECT", fallback="c:3") == ["http://a:1", "http://c:3"]


@pytest.mark.parametrize("proxies", ["http://[::1", "http://a:port;DIRECT", "DIRECT|h\u00e9:1"])
def test_what_is_not_a_url_is_refused(proxies: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid proxy URL"):
        _find(proxies)


def test_proxies_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://from.invalid:1")
    assert _find("auto;DIRECT", f"{server.url}/wpad.dat") == ["http://from.invalid:1", "DIRECT"]
    assert not server.requests


def test_proxies_from_a_file(server: Server) -> None:
    found = ["http://s.invalid:1", "DIRECT", "http://b.invalid:2"]
    assert _find("auto;http://b.invalid:2", f"{server.url}/wpad.dat") == found
    assert _find("auto", f"{server.url}/query?site=a") == ["DIRECT"]


def test_the_first_file_that_works_counts(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    bad = [f"{server.url}/{name}" for name in ("absent", "bad", "empty")]
    with caplog.at_level(logging.WARNING):
        assert _find("auto", *bad, "http://[::1", f"{server.url}/wpad.dat") == [
            "http://s.invalid:1",
            "DIRECT",
        ]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["no proxy from http"] * 4
    assert "evaluation failed: SyntaxError" in caplog.text
    assert "names no usable proxy" in caplog.text
    assert "not a valid URL; correct CVMFS_PAC_URLS" in caplog.text


def test_no_proxy_found_is_an_error_unless_others_are_named(server: Server) -> None:
    assert _find("auto;DIRECT", f"{server.url}/bad") == ["DIRECT"]
    with pytest.raises(ConfigurationError, match=r"no proxy was found automatically.*/absent"):
        _find("auto", f"{server.url}/absent")
