"""The syntax of proxy lists."""

import pytest

from cvmfs_graphdriver.client.network.proxies import DIRECT, parse_groups, proxy_groups


def _urls(text: str) -> list[list[str]]:
    return [[proxy.url for proxy in group] for group in parse_groups(text)]


def test_groups_and_members() -> None:
    assert _urls("http://a:3128|b:3128; https://c ;;|;DIRECT") == [
        ["http://a:3128", "http://b:3128"],
        ["https://c"],
        ["DIRECT"],
    ]
    assert parse_groups("direct") == ((DIRECT,),)
    assert parse_groups(" ;| ") == ()


@pytest.mark.parametrize(
    ("regular", "fallback", "groups", "first_fallback"),
    [
        ("a;DIRECT", "", [["http://a"], ["DIRECT"]], 2),
        ("a|DIRECT;DIRECT", "b|DIRECT;DIRECT", [["http://a"], ["http://b"]], 1),
        ("DIRECT", "b", [["http://b"]], 0),
        ("DIRECT", "DIRECT", [["DIRECT"]], 1),
        ("", "", [["DIRECT"]], 1),
    ],
)
def test_fallback_groups(regular: str, fallback: str, groups: list[list[str]], first_fallback: int) -> None:
    result = proxy_groups(regular, fallback)
    assert [[proxy.url for proxy in group] for group in result.groups] == groups
    assert result.fallback == first_fallback
    assert result.size == sum(map(len, groups))
