"""Proxy configuration files: what they say, and that none of them can harm us."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.network import pac, pac_worker
from cvmfs_graphdriver.client.network.pac import find_proxies, parse_answer
from cvmfs_graphdriver.kernel.child import interpreter
from tests.support.fuzzing import fuzz
from tests.support.hostile_scripts import hostile_scripts
from tests.support.mutations import COSTLY_INPUTS, INPUTS, mutations

URL, HOST = "http://s1.example.org/cvmfs/a.b", "s1.example.org"


def _find(source: str, url: str = URL, host: str = HOST) -> str:
    return find_proxies(source, url, host)


def _body(text: str) -> str:
    return f"function FindProxyForURL(url, host) {{ {text} }}"


@pytest.mark.parametrize(
    ("answer", "groups"),
    [
        ("DIRECT", "DIRECT"),
        ("PROXY a:3128; PROXY b:3128; DIRECT", "http://a:3128;http://b:3128;DIRECT"),
        ("PROXY http://a:3128;", "http://a:3128"),
        ("proxy a:1;HTTP b:2;HTTPS c:3; SOCKS d:4; SOCKS5 e:5", "http://a:1;http://b:2;https://c:3"),
    ],
)
def test_meaning_of_the_answer(answer: str, groups: str) -> None:
    assert parse_answer(answer) == groups


@pytest.mark.parametrize("place", ["http://[::1", "a|b", "h\u00e9:1", "http://x:port", "x:99999999", "[:1"])
def test_invalid_addresses_are_passed_over(place: str) -> None:
    assert parse_answer(f"PROXY {place}; DIRECT") == "DIRECT"


@pytest.mark.parametrize("answer", ["", ";", "SOCKS a:1", "PROXY", "undefined", "x\n\x1b[2J" * 1000])
def test_answers_that_name_no_proxy_are_refused(answer: str) -> None:
    with pytest.raises(ValueError, match="names no usable proxy") as caught:
        parse_answer(answer)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_the_number_of_proxies_is_limited() -> None:
    assert len(parse_answer("PROXY a:1;" * 100).split(";")) == 100
    with pytest.raises(ValueError, match="more than 100 proxies"):
        parse_answer("PROXY a:1;" * 101)


@pytest.mark.fuzz
def test_any_answer_is_understood_or_refused() -> None:
    good = [b"PROXY a:3128; PROXY http://b:3128; DIRECT", b"HTTPS c:3; SOCKS d:4; HTTP [::1]:5"]
    understood = 0
    for data in mutations(good):
        try:
            groups = parse_answer(data.decode("utf-8", "replace"))
        except ValueError:
            continue
        assert groups
        assert groups.isascii()
        understood += 1
    assert understood > INPUTS * 0.15


def test_a_file_as_sites_have_it() -> None:
    source = """
    /* for worker nodes */
    var local = "PROXY http://squid.example.org:3128";  // ours
    function inside(host) {
        return isInNet(dnsResolve(host), "127.0.0.0", "255.0.0.0") || shExpMatch(host, "*.example.org");
    }
    function FindProxyForURL(url, host)
    {
        host = host.toLowerCase();
        if (dnsDomainIs(host, ".nowhere.org")) return "DIRECT";
        else if (url.substring(0, 6) == "https:") { return 'PROXY tls:1'; }
        var order = inside(host) ? local : "DIRECT";
        order += "; DIRECT";
        if (host.length > 1000 && !isResolvable(host)) { order = ""; }
        return order;
    }
    """
    assert _find(source) == "http://squid.example.org:3128;DIRECT"
    assert _find(source, host="localhost") == "http://squid.example.org:3128;DIRECT"
    assert _find(source, host="X.Nowhere.ORG") == "DIRECT"
    assert _find(source, url="https://s1.example.org/") == "http://tls:1"
    assert _find(source, host="elsewhere.invalid") == "DIRECT;DIRECT"


def test_arrays_loops_and_regular_expressions_as_sites_have_them() -> None:
    source = """
    var squids = ["squid1", "squid2", "squid3"];
    var nets = [["10.0.0.0", "255.0.0.0", 0], ["127.0.0.0", "255.0.0.0", 1]];
    function FindProxyForURL(url, host) {
        var first = 0, list = [];
        for (var i = 0; i < nets.length; i++) {
            if (isInNet(host, nets[i][0], nets[i][1])) { first = nets[i][2]; break; }
        }
        while (list.length < squids.length) {
            list.push("PROXY " + squids[(first + list.length) % squids.length] + ".example.org:3128");
        }
        switch (url.replace(/^(\\w+):.*$/, "$1")) {
            case "http": break;
            default: return "DIRECT";
        }
        return list.join("; ") + "; DIRECT";
    }
    """
    squids = [f"http://squid{number}.example.org:3128" for number in (2, 3, 1)]
    assert _find(source, host="127.0.0.1") == ";".join([*squids, "DIRECT"])
    assert _find(source, url="ftp://s1.example.org/") == "DIRECT"


def test_hundreds_of_conditions_as_sites_have_them() -> None:
    cases = " else ".join(f"if (host == 'h{number}') return 'PROXY p{number}:1';" for number in range(500))
    assert _find(_body(f"{cases} else return 'DIRECT';"), host="h499") == "http://p499:1"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "FindProxyForURL is not defined"),
        ("no script", "SyntaxError"),
        ("\x00", "cannot be evaluated"),
        (_body("return x;"), "x is not defined"),
        (_body(""), "no usable proxy: 'undefined'"),
        (_body("return 1;"), "no usable proxy: '1'"),
        (_body("throw 'a\\u001b\\nJSERROR: b';"), r"evaluation failed: a\?$"),
        (_body("return FindProxyForURL(url, host);"), "call stack"),
        (_body("return 'PROXY a:1;'.repeat(100000);"), "too long"),
        (_body("for (;;) dnsResolve('localhost');"), "more than 100 names"),
        (_body("for (;;) isInNet('localhost', '10.0.0.0', '255.0.0.0');"), "more than 100 names"),
        (_body("for (;;) myIpAddress();"), "more than 100 names"),
    ],
)
def test_files_that_do_not_work_are_refused(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _find(source)


@pytest.mark.parametrize(
    "source",
    [
        _body("while (true) {}"),
        "while (true) {}",
        _body("for (;;) { try { dnsResolve('localhost'); } catch (e) {} }"),
        _body("return /^(a+)+$/.test('a'.repeat(60) + 'b') ? '' : '';"),
    ],
)
def test_computing_without_end_is_ended(source: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="evaluation exceeded its limit of (processor time|10 seconds)"):
        _find(source)
    assert time.monotonic() - started < 12


@pytest.mark.parametrize(
    "source",
    [
        _body("var all = []; while (true) { all.push({a: 1}); }"),
        _body("var all = []; while (true) { all.push(new ArrayBuffer(1 << 20)); }"),
        "var text = 'x'; var all = []; while (true) { text += 'yyyyyyyy'; all.push(text + text); }",
        _body("return new ArrayBuffer(1e9);"),
    ],
)
def test_allocating_without_end_is_ended(source: str) -> None:
    with pytest.raises(ValueError, match="evaluation exceeded its limit"):
        _find(source)


def test_waiting_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pac, "_SECONDS", 0.01)
    with pytest.raises(ValueError, match=r"evaluation exceeded its limit of 0\.01 seconds"):
        _find(_body("return 'DIRECT';"))


def test_messages_without_end_are_no_load() -> None:
    assert (
        _find(_body("for (var i = 0; i < 2000; i++) alert('x'.repeat(1000)); return 'DIRECT';")) == "DIRECT"
    )


def test_scripts_reach_no_files(tmp_path: Path) -> None:
    module = tmp_path / "module.js"
    module.write_text("globalThis.reached = true;")
    tmp_path.chmod(0o755)
    names = "typeof std + typeof os + typeof require + typeof load + typeof print + typeof console"
    source = f"import({str(module)!r}); " + _body(f"return 'PROXY ' + {names} + typeof reached + ':1';")
    assert _find(source) == f"http://{'undefined' * 7}:1"


@pytest.mark.parametrize("source", ["", "no script", _body("throw 1;"), _body("return '\\ud800';")])
def test_the_worker_ends_in_order(source: str) -> None:
    command, environment = interpreter()
    process = subprocess.run(
        [*command, "-m", pac_worker.__name__],
        env=environment,
        input=json.dumps([source, URL, HOST]).encode(),
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (1, b"")
    assert b"Traceback" not in process.stderr


@pytest.mark.root
@pytest.mark.fuzz
def test_any_script_is_evaluated_or_refused() -> None:
    """In workers that are forked, not started; they have no network, since scripts look up any name."""
    good = [
        _body("if (host.length > 3 && !isPlainHostName(host)) return 'PROXY b:1; DIRECT'; else return '';"),
        _body("return isInNet('127.0.0.1', '127.0.0.0', '255.0.0.0') ? 'PROXY a:1' : url.substring(0, 4);"),
    ]
    command, environment = interpreter()
    nursery: subprocess.Popen[bytes] | None = None

    def use(source: str) -> str:
        nonlocal nursery
        if nursery is None:
            nursery = subprocess.Popen(
                ["unshare", "--net", *command, "-m", "tests.support.pac_nursery"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(json.dumps([source, URL, HOST]).encode() + b"\n")
        nursery.stdin.flush()
        code, answer, mistakes = json.loads(nursery.stdout.readline())
        assert "Traceback" not in mistakes, mistakes
        try:
            assert parse_answer(pac._understood(code, answer.encode("latin-1"), mistakes.encode("latin-1")))
        except ValueError as error:
            return str(error).partition(":")[0][:40]
        return "answered"

    outcomes = fuzz(use, hostile_scripts(good, COSTLY_INPUTS))
    assert outcomes["answered"] > COSTLY_INPUTS * 0.1
