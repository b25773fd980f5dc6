"""Proxy configuration files by the thousand: grown from the words of the language, or damaged."""

import random
from collections.abc import Iterator, Sequence

from tests.support.mutations import SEED, mutations

__all__ = ["hostile_scripts"]

_ATOMS = (
    *(
        "url",
        "host",
        "'PROXY a:1'",
        "'DIRECT'",
        "''",
        "0",
        "-1",
        "1e9",
        "NaN",
        "null",
        "undefined",
        "this",
        "[]",
        "{}",
    ),
    *(
        "'x'.repeat(1e5)",
        "'\\ud800'",
        "'\\u0000'",
        "/(a|a)*$/",
        "globalThis",
        "arguments",
        "Symbol.iterator",
        "0n",
    ),
    *(
        "new Proxy({}, {})",
        "new ArrayBuffer(1e6)",
        "function () { return 'DIRECT'; }",
        "FindProxyForURL",
        "10n ** 50n",
    ),
    *(
        "{toString() { return 'DIRECT'; }}",
        "{toString: 5}",
        "Object.create(null)",
        "new Date(NaN)",
        "`${url}`",
    ),
)
_CALLS = (
    *(
        "isPlainHostName",
        "dnsDomainIs",
        "localHostOrDomainIs",
        "isResolvable",
        "isInNet",
        "dnsResolve",
        "myIpAddress",
    ),
    *(
        "dnsDomainLevels",
        "shExpMatch",
        "weekdayRange",
        "dateRange",
        "timeRange",
        "isInNetEx",
        "isResolvableEx",
        "alert",
    ),
    *(
        "dnsResolveEx",
        "myIpAddressEx",
        "sortIpAddressList",
        "getClientVersion",
        "convert_addr",
        "FindProxyForURL",
        "eval",
    ),
    *(
        "String",
        "Number",
        "Function",
        "Array",
        "JSON.stringify",
        "JSON.parse",
        "Object.keys",
        "parseInt",
        "RegExp",
    ),
    *(
        "Reflect.construct",
        "Promise.resolve",
        "Math.max",
        "decodeURIComponent",
        "Symbol",
        "BigInt",
        "new Map",
    ),
)
_METHODS = (
    *(
        "length",
        "substring(0, 5)",
        "split('')",
        "replace(/./g, '$&$&')",
        "toLowerCase()",
        "concat(url)",
        "sort()",
    ),
    *(
        "constructor",
        "__proto__",
        "push(host)",
        "match(/(.*)*x/)",
        "charCodeAt(1e9)",
        "at(-1)",
        "join('; ')",
        "then(alert)",
    ),
)
_OPERATORS = (
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "===",
    "&&",
    "||",
    ",",
    "<",
    "in",
    "instanceof",
    "??",
    ">>>",
    "**",
    "=",
)
_STATEMENTS = (
    *(
        "return {0};",
        "return {0};",
        "return 'PROXY ' + {0};",
        "if ({0}) return {1}; else return {0};",
        "var v = {0};",
    ),
    *(
        "for (var i = 0; i < 99; i++) {{ {0}; }}",
        "try {{ throw {0}; }} catch (e) {{ return e; }}",
        "throw {0};",
    ),
    *(
        "switch ({0}) {{ case {1}: return {0}; default: return 'DIRECT'; }}",
        "for (var k in {0}) return k;",
        "{0};",
    ),
    *(
        "FindProxyForURL = {0};",
        "dnsResolve = {0};",
        "delete globalThis[{0}];",
        "String.prototype.toString = {0};",
    ),
    *(
        "return (function* () {{ yield {0}; }})();",
        "return (async () => {0})();",
        "with ({0}) return host;",
        "debugger;",
    ),
    *(
        "for (const c of {0}) return c;",
        "Object.defineProperty(globalThis, {0}, {{get() {{ return {1}; }}}});",
    ),
)
_ENDLESS = (
    *(
        "for (;;) {0};",
        "while (true) v = v + 'yyyyyyyy';",
        "var a = []; for (;;) a.push({0}, [a]);",
        "return /(a+)+$/.test('a'.repeat(40) + 'b');",
    ),
    *(
        "for (;;) try {{ {0}; }} catch (e) {{}}",
        "return new Array(1e8).join({0});",
        "for (;;) new ArrayBuffer(1 << 20);",
    ),
)
_PLACES = (
    "function FindProxyForURL(url, host) {{ {0} }}",
    "var FindProxyForURL = (url, host) => {{ {0} }};",
    "{0}",
    "class FindProxyForURL {{ constructor(url, host) {{ {0} }} }}",
)


def hostile_scripts(good: Sequence[str], count: int) -> Iterator[str]:
    """``count`` files; few of them never end, since each of these takes the worker's whole time."""
    chance = random.Random(SEED)
    damaged = mutations([text.encode() for text in good], count)
    for _ in range(count):
        if chance.random() < 0.3:
            yield next(damaged).decode("utf-8", "replace")
            continue
        patterns = [chance.choice(_STATEMENTS) for _ in range(chance.choice((1, 2, 3, 6)))]
        if chance.random() < 0.001:
            patterns.insert(0, chance.choice(_ENDLESS))
        body = " ".join(each.format(_expression(chance, 0), _expression(chance, 0)) for each in patterns)
        if chance.random() < 0.5:  # so that what follows a mistake is reached
            body = f"try {{ {body} }} catch (e) {{}} return 'DIRECT';"
        place = _PLACES[0] if chance.random() < 0.9 else chance.choice(_PLACES)
        yield place.format(body)


def _expression(chance: random.Random, depth: int) -> str:
    match chance.randrange(6 if depth < 4 else 2):
        case 0 | 1:
            return chance.choice(_ATOMS)
        case 2:
            words = ", ".join(_expression(chance, depth + 1) for _ in range(chance.randrange(4)))
            return f"{chance.choice(_CALLS)}({words})"
        case 3:
            return f"({_expression(chance, depth + 1)}).{chance.choice(_METHODS)}"
        case 4:
            one, other = _expression(chance, depth + 1), _expression(chance, depth + 1)
            return f"({one} {chance.choice(_OPERATORS)} {other})"
        case _:
            return f"[{_expression(chance, depth + 1)}, {_expression(chance, depth + 1)}]"
