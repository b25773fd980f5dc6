"""Proxy configuration files: what they say, and what is refused."""

import random
from itertools import chain

import pytest

from cvmfs_graphdriver.client.pac.answer import find_proxies
from cvmfs_graphdriver.client.pac.running import ScriptError
from tests.support.mutations import INPUTS, SEED, mutations

ADDRESSES = {"squid.example.org": "10.1.2.3", "s1.example.org": "188.185.0.1"}


def _find(source: str, url: str = "http://s1.example.org/cvmfs/a.b", host: str = "s1.example.org") -> str:
    return find_proxies(source, url, host, ADDRESSES.get)


def _body(text: str) -> str:
    return f"function FindProxyForURL(url, host) {{ {text} }}"


@pytest.mark.parametrize(
    ("answer", "groups"),
    [
        ("DIRECT", "DIRECT"),
        ("PROXY a:3128; PROXY b:3128; DIRECT", "http://a:3128;http://b:3128;DIRECT"),
        ("PROXY http://a:3128;", "http://a:3128"),
        ("proxy a:1;HTTP b:2;HTTPS c:3; SOCKS d:4; SOCKS5 e:5", "http://a:1;http://b:2;https://c:3"),
        ("", ""),
    ],
)
def test_meaning_of_the_answer(answer: str, groups: str) -> None:
    assert _find(_body(f"return '{answer}';")) == groups


def test_a_file_as_sites_have_it() -> None:
    source = """
    /* for worker nodes */
    var local = "PROXY http://squid.example.org:3128";  // ours
    function inside(host) {
        return isInNet(dnsResolve(host), "10.0.0.0", "255.0.0.0") || shExpMatch(host, "*.example.org");
    }
    function FindProxyForURL(url, host)
    {
        host = host.toLowerCase();
        if (isPlainHostName(host) || dnsDomainIs(host, ".nowhere.org")) return "DIRECT";
        else if (url.substring(0, 6) == "https:") { return 'PROXY tls:1'; }
        var order = inside(host) ? local : "DIRECT";
        order += "; DIRECT";
        if (host.length > 1000 && !isResolvable(host)) { order = ""; }
        return order;
    }
    """
    assert _find(source) == "http://squid.example.org:3128;DIRECT"
    assert _find(source, host="lxplus") == "DIRECT"
    assert _find(source, host="X.Nowhere.ORG") == "DIRECT"
    assert _find(source, url="https://s1.example.org/") == "http://tls:1"
    assert _find(source, host="elsewhere.com") == "DIRECT;DIRECT"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2", "3"),
        ("'a' + 1", "a1"),
        ("1 + 'a'", "1a"),
        ("3 - 1 - 1", "1"),
        ("-2 + 5", "3"),
        ("(1 < 2) + ''", "true"),
        ("(2 <= 1) + ''", "false"),
        ("('1' == 1) + ''", "true"),
        ("('a' === 'a' && 1 !== 2) + ''", "true"),
        ("(null == undefined) + ''", "true"),
        ("!0 ? 'y' : 'n'", "y"),
        ("'' || 'x'", "x"),
        ("'a' && 'b'", "b"),
        ("'abc'.charAt(1)", "b"),
        ("'abcdef'.substring(4, 2)", "cd"),
        ("'abcdef'.slice(2)", "cdef"),
        ("'abc'.indexOf('c') + ''", "2"),
        ("'abc'.indexOf('x') + ''", "-1"),
        ("'abc'.length + ''", "3"),
        ("'a\\'b\\n' + \"\"", "a'b\n"),
        ("dnsDomainLevels('a.b.c') + ''", "2"),
        ("localHostOrDomainIs('www', 'www.x.org') + ''", "true"),
        ("myIpAddress()", "127.0.0.1"),
        ("dnsResolve('nobody') + ''", "null"),
        ("isInNet('10.9.9.9', '10.0.0.0', '255.0.0.0') + ''", "true"),
        ("isInNet('nobody', '10.0.0.0', '255.0.0.0') + ''", "false"),
        ("shExpMatch('a[b', 'a[*') + ''", "true"),
        ("true ? false ? 1 : 'b' : 'c'", "b"),
    ],
)
def test_expressions(expression: str, value: str) -> None:
    found: list[str] = []

    def resolve(host: str) -> str | None:
        found.append(host)
        return ADDRESSES.get(host)

    source = _body(f"isResolvable({expression} + '|'); return 'DIRECT';").replace(
        f"{expression} +", f"({expression}) +"
    )
    find_proxies(source, "u", "h", resolve)
    assert found[-1] == value + "|"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "FindProxyForURL, which is not understood"),
        (_body(""), "no string"),
        (_body("return 1;"), "no string"),
        (_body("return x;"), "uses x"),
        (_body("return eval('1');"), "calls eval"),
        (_body("return host.constructor;"), "constructor"),
        (_body("return host.replace('a', 'b');"), "replace"),
        (_body("for (;;) {}"), "'for'"),
        (_body("while (true) {}"), "'while'"),
        (_body("return isPlainHostName();"), "number of arguments"),
        (_body("return 'a"), "not understood"),
        (_body("return (1;"), "should be"),
        (_body("return " + "(" * 1000 + "1" + ")" * 1000), "too deeply"),
        (_body("if (1) " * 1000 + ";"), "too deeply"),
        (_body("return FindProxyForURL(url, host);"), "too deeply"),
        (_body("var s = 'xxxxxxxxxxxxxxxx';" + "s += s;" * 40 + "return s;"), "too long a string"),
        ("function f(n) { f(n); f(n); } " + _body("return f(1);"), "too"),
        ("function f(", "should be"),
        (_body("return 'DIRECT';") + "}", "should be"),
        ("\x00", "not understood"),
    ],
)
def test_what_is_not_understood_is_refused(source: str, reason: str) -> None:
    with pytest.raises(ScriptError, match=reason):
        _find(source)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1" + " + 1" * 3000, "3001"),
        ("-!" * 3000 + "1 + ''", "-1"),
        ("'' || " * 3000 + "'x'", "x"),
        ("'a' && " * 3000 + "'b'", "b"),
        ("false ? 1 : " * 3000 + "'c'", "c"),
        ("'AbC'" + ".toLowerCase()" * 3000, "abc"),
        ("('a'" + " == 1" * 3000 + ") + ''", "false"),
    ],
)
def test_long_chains_are_no_deep_nesting(expression: str, value: str) -> None:
    found: list[str] = []
    find_proxies(_body(f"isResolvable(({expression}) + '|'); return 'DIRECT';"), "u", "h", found.append)
    assert found == [value + "|"]


def test_hundreds_of_conditions_as_sites_have_them() -> None:
    cases = " else ".join(f"if (host == 'h{number}') return 'PROXY p{number}:1';" for number in range(500))
    assert _find(_body(f"{cases} else return 'DIRECT';"), host="h499") == "http://p499:1"
    assert _find(_body(f"{cases} else return 'DIRECT';"), host="h500") == "DIRECT"


def test_brackets_in_functions_that_call_each_other_add_up_to_an_error() -> None:
    deep = "-(" * 30 + "f(n)" + ")" * 30
    with pytest.raises(ScriptError, match="too deeply"):
        _find(f"function f(n) {{ return {deep}; }} " + _body("return f(1);"))


@pytest.mark.parametrize("place", ["http://[::1", "a|b", "h\u00e9:1", "http://x:port", "x:99999999", "[:1"])
def test_what_is_no_address_is_passed_over(place: str) -> None:
    assert _find(_body(f"return 'PROXY {place}; DIRECT';")) == "DIRECT"


GOOD = [
    *("return", "if (", "else", "var x =", "(", ")", "{", "}", ";", "'DIRECT'", "host", "url", "x", "=", "+"),
    *("==", "!", "&&", "||", "?", ":", ".length", ",", "1", "-", "+= x", "x = x + x;", "f(", "'PROXY [a:1'"),
    *(".substring(", "isInNet(host, '1.2.3.4', '255.0.0.0')", "shExpMatch(host, '*[')", ".indexOf(host)"),
    *(
        "dnsDomainIs(host,",
        "dnsDomainLevels(x)",
        "function f(a) { return",
        "FindProxyForURL(",
        "1e9",
        "9" * 400,
    ),
    *(".charAt(-x)", "toString", "return 'PROXY a:1; DIRECT';", "if (x) { return host; }", "\\", "/*", "'"),
]


WHOLE = [
    "var a = host.toLowerCase(); if (a.length > 3 && !isPlainHostName(a)) return 'PROXY b:1; DIRECT';",
    "return isInNet(dnsResolve(host), '10.0.0.0', '255.0.0.0') ? 'PROXY a:1' : url.substring(0, 4);",
    "if (shExpMatch(host, '*.org') || 1 + 2 - 3 < -4) { return host; } else if (x) {} return 'HTTPS c:3';",
    "var s = 'x'; s += s; s = s + 1 - 1; return s == '0' ? s : 'DIRECT';} function f(a, b) { return a;",
]


@pytest.mark.fuzz
def test_any_script_is_evaluated_or_refused() -> None:
    """Half of them made of the words of the language, half of them good ones with damage."""
    chance = random.Random(SEED)
    words = (_body(" ".join(chance.choices(GOOD, k=chance.randrange(1, 9)))) for _ in range(INPUTS // 2))
    good = [_body(text).encode() for text in WHOLE]
    damaged = (data.decode("utf-8", "replace") for data in mutations(good, INPUTS // 2))
    answered = 0
    for source in chain(words, damaged):
        try:
            assert isinstance(_find(source), str)
            answered += 1
        except ScriptError:
            continue
    assert answered > INPUTS * 0.03
