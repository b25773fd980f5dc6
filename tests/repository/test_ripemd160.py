"""RIPEMD-160 with and without OpenSSL."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.ripemd160 import PureRipemd160, new_ripemd160


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_ripemd160_of_its_authors_vectors(message: bytes, expected: str) -> None:
    hasher = PureRipemd160()
    hasher.update(message)
    assert hasher.digest().hex() == expected
    assert Digest.of(message, Algorithm.RMD160).hex == expected


@pytest.mark.skipif("ripemd160" not in hashlib.algorithms_available, reason="OpenSSL has no RIPEMD-160 here")
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_ripemd160_equals_openssl(pieces: list[bytes]) -> None:
    ours, openssl = PureRipemd160(), hashlib.new("ripemd160")
    for piece in pieces:
        ours.update(piece)
        openssl.update(piece)
        assert ours.digest() == openssl.digest()


def test_hosts_whose_openssl_lacks_it_have_it_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    def new(name: str, **options: bool) -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", new)
    assert isinstance(new_ripemd160(), PureRipemd160)
    assert Digest.of(b"abc", Algorithm.RMD160).hex == "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"
