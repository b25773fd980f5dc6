"""Digests and names: text forms, places, keys of paths."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.digest import Algorithm, Digest, ObjectName, PathKey, Suffix
from cvmfs_graphdriver.repository.errors import FormatError
from tests.support.mutations import survives


@given(st.sampled_from(Algorithm), st.binary())
def test_text_comes_back(algorithm: Algorithm, data: bytes) -> None:
    digest = Digest.of(data, algorithm)
    assert Digest.parse(digest.text) == digest
    for suffix in Suffix:
        name = ObjectName(digest, suffix)
        assert ObjectName.parse(name.text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "z" * 40,
        "A" * 40,
        "ab" * 21,
        "ab" * 16,
        "\uff10" * 40,
        "ab" * 20 + "-sha1",
        "ab" * 16 + "-rmd160",
        "ab" * 20 + "\n",
        "a b" * 20,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Digest.parse(text)


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
    for data in (message, bytearray(message), memoryview(message)):
        assert Digest.of(data, Algorithm.RMD160).hex == expected


def test_only_repositories_with_ripemd160_import_it() -> None:
    program = (
        "import sys; from cvmfs_graphdriver.repository.digest import Algorithm, Digest; "
        "Digest.of(b''); assert 'Crypto' not in sys.modules; "
        "Digest.of(b'', Algorithm.RMD160); assert 'Crypto' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_places() -> None:
    name = ObjectName(Digest(Algorithm.RMD160, bytes(range(20))), Suffix.CATALOG)
    digits = "0102030405060708090a0b0c0d0e0f10111213-rmd160"
    assert name.path == f"data/00/{digits}C"
    assert name.cache_path == f"00/{digits}"
    assert name.alternative_path == f".cvmfsalt-00{digits}C"


def test_path_keys_are_little_endian_and_signed() -> None:
    assert PathKey.of(b"") == (338333539836370388, 9098107892288553193)
    assert PathKey.of(b"/new_repository") == (8193369706472672701, 4868506713845114430)


@given(st.binary(), st.integers(1, 40))
def test_pieces_give_the_digest_of_the_whole(data: bytes, size: int) -> None:
    for algorithm in Algorithm:
        hasher = algorithm.new()
        for at in range(0, len(data), size):
            hasher.update(data[at : at + size])
        assert Digest(algorithm, hasher.digest()) == Digest.of(data, algorithm)


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    good = [ObjectName(Digest.of(b"", a), s).text.encode() for a in Algorithm for s in Suffix]

    def parse(data: bytes) -> None:
        text = data.decode("latin-1")
        assert ObjectName.parse(text).text == text

    assert survives(parse, good) > 0.5
