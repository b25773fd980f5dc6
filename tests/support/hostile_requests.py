"""HTTP requests as no client sends them: damaged heads and bodies, lengths that lie, requests without end."""

import json
import random
from collections.abc import Iterator, Sequence

from tests.support.mutations import SEED, mutations

__all__ = ["hostile_requests"]

_LENGTHS = (
    b"-1",
    b"+1",
    b"1e3",
    b"0x10",
    b"9" * 30,
    b" 5",
    b"5, 5",
    b"",
    b"\xb2",
    b"1048577",
    b"1048576",
    b"3",
)
_HEADERS = (
    *(
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: keep-alive",
        b"Connection: close",
    ),
    *(
        b"Authorization: Bearer ",
        b"Authorization: Bearer \xff",
        b"Host: [",
        b"Content-Type: text/plain;" + b"a" * 900,
    ),
    *(b"Range: bytes=0-0", b"Range: bytes=-5", b"Range: bytes=" + b"9" * 30 + b"-", b"Range: bytes=5-2,1-"),
    *(b": empty", b"no colon", b" folded: x", b"a:" * 50, b"X: " + b"x" * 70_000, b"\0: \0", b"Upgrade: h2c"),
)
_PATHS = (
    *(
        b"/",
        b"",
        b"*",
        b"/status/",
        b"/status/%00",
        b"/status/" + b"0" * 64,
        b"/status/" + b"g" * 64,
        b"//host/x",
    ),
    *(
        b"/../secret",
        b"/%2e%2e/secret",
        b"/..%2fsecret",
        b"/%2fetc/passwd",
        b"/\xff",
        b"/" + b"a" * 66_000,
        b"http://[::1",
    ),
    *(
        b"/file%00",
        b"/file?x",
        b"/file%",
        b"/fi%6ce",
        b"/pipe",
        b"/sub",
        b"/up/secret",
        b"/a/b?" + b"q" * 900,
        b"/status/../..",
    ),
)
_METHODS = (
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"get",
    b"G\0T",
    b"",
)
_VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/9.9",
    b"HTTP/1.1.1",
    b"HTTP/x",
    b"",
    b"HTTP/1.\xb2",
)


def hostile_requests(good: Sequence[bytes], count: int) -> Iterator[bytes]:
    """What ``count`` clients send: a damaged one of the ``good`` requests, or one made up."""
    chance = random.Random(SEED)
    damaged = mutations(good, count)
    for _ in range(count):
        match chance.randrange(5):
            case 0 | 1:
                yield next(damaged)
            case 2:  # with the right length for a wrong body
                body = next(damaged)
                yield _head(b"POST", b"/", b"HTTP/1.1", b"Content-Length: %d" % len(body)) + body
            case _:
                yield b"".join(_made_up(chance) for _ in range(chance.choice((1, 1, 1, 2, 5))))


def _made_up(chance: random.Random) -> bytes:
    headers = [chance.choice(_HEADERS) for _ in range(chance.choice((0, 0, 1, 1, 3, 120)))]
    body = b""
    if chance.random() < 0.6:
        body = json.dumps(_document(chance, 0)).encode()
        if chance.random() < 0.2:
            body = chance.choice((b"[" * 50_000, b"1\r\nx\r\n0\r\n\r\n", b"\0" * 1000, b'{"Records": ' * 900))
        length = b"%d" % len(body) if chance.random() < 0.6 else chance.choice(_LENGTHS)
        headers.insert(0, b"Content-Length: " + length)
    words = (chance.choice(_METHODS[:3] if chance.random() < 0.7 else _METHODS), chance.choice(_PATHS))
    version = chance.choice(_VERSIONS[:2] if chance.random() < 0.8 else _VERSIONS)
    return _head(*words, version, *headers) + body


def _head(method: bytes, path: bytes, version: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"%b %b %b" % (method, path, version), *headers, b"", b""))


def _document(chance: random.Random, depth: int) -> object:
    """What a bucket's notification might contain."""
    match chance.randrange(4 if depth < 5 else 2):
        case 0:
            return chance.choice(
                (None, True, -1, 1e308, 10**30, "", "\0\ud800", "x" * 200, "s3:ObjectCreated:Put")
            )
        case 1:
            return {"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": "0" * 64, "size": 5}}}
        case 2:
            return [_document(chance, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            keys = ("Records", "s3", "object", "key", "", "\u202e")
            return {chance.choice(keys): _document(chance, depth + 1) for _ in range(chance.randrange(4))}
