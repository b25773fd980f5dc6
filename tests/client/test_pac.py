"""Proxy configuration files: what they say, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.client.javascript import ScriptError
from cvmfs_graphdriver.client.pac import find_proxies

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


WORDS = st.sampled_from(
    [
        *("return", "if", "else", "var", "(", ")", "{", "}", ";", "'DIRECT'", "host", "url", "x", "=", "+"),
        *("==", "!", "&&", "||", "?", ":", ".", ",", "1", "length", "substring", "isInNet", "function", "-"),
        "FindProxyForURL",
    ]
)


@settings(max_examples=500, deadline=None)
@given(words=st.lists(WORDS, max_size=30))
def test_any_words_are_evaluated_or_refused(words: list[str]) -> None:
    for source in (" ".join(words), _body(" ".join(words))):
        try:
            answer = _find(source)
        except ScriptError:
            continue
        assert isinstance(answer, str)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=100))
def test_any_text_is_evaluated_or_refused(text: str) -> None:
    with pytest.raises(ScriptError):
        _find(text)
