"""The manifest: each letter, the stock order, hostile text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.manifest import Manifest
from tests.support.mutations import survives

FULL = Manifest(
    root=Digest.of(b"c"),
    ttl=240,
    revision=2**62,
    fqrn="x.example.org",
    root_size=4096,
    certificate=Digest.of(b"x", Algorithm.RMD160),
    history=Digest.of(b"h", Algorithm.SHAKE128),
    metainfo=Digest.of(b"m"),
    reflog=Digest.of(b"y"),
    micro_catalog=Digest.of(b"l"),
    timestamp=1795458710,
    garbage_collectable=True,
    alternative_paths=True,
)
# All zeros mean "none".
DIGESTS = st.builds(Digest, st.sampled_from(Algorithm), st.binary(min_size=20, max_size=20).filter(any))


def test_text_is_that_of_stock_tools() -> None:
    lines = FULL.export().decode().splitlines()
    assert [line[0] for line in lines] == list("CBRDSGALNXHTMY")
    assert lines[0] == "C" + Digest.of(b"c").hex
    assert lines[2] == "Rd41d8cd98f00b204e9800998ecf8427e"
    assert lines[4:7] == ["S4611686018427387904", "Gyes", "Ayes"]
    assert lines[9].endswith("-rmd160")
    bare = Manifest(root=Digest.of(b"c"), ttl=1, revision=1, fqrn="x.org")
    assert [line[0] for line in bare.export().decode().splitlines()] == list("CBRDSGANT")


@given(
    st.builds(
        Manifest,
        root=DIGESTS,
        certificate=st.none() | DIGESTS,
        history=st.none() | DIGESTS,
        metainfo=st.none() | DIGESTS,
        reflog=st.none() | DIGESTS,
        micro_catalog=st.none() | DIGESTS,
        ttl=st.integers(0, 2**31 - 1),
        revision=st.integers(0, 2**62),
        root_size=st.integers(0, 2**40),
        timestamp=st.integers(0, 253_402_300_799),
        garbage_collectable=st.booleans(),
        alternative_paths=st.booleans(),
        fqrn=st.just(""),
    )
)
def test_what_is_written_is_read_again(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.export()) == manifest


def test_unknown_letters_are_passed_over_and_the_last_of_a_letter_counts() -> None:
    assert Manifest.parse(b"Zone\n?\nD7\n" + FULL.export() + b"Ztwo\n\n") == FULL
    assert Manifest.parse(FULL.export() + b"D7\n").ttl == 7
    null = FULL.export().replace(Digest.of(b"m").hex.encode(), b"0" * 40)
    assert Manifest.parse(null).metainfo is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("D240", "D", "line D holds ''"),
        ("D240", "D-1", "line D holds '-1'"),
        ("D240", "D2 4", "not a number"),
        ("D240", "D\u0664", "not a number"),
        ("S4611686018427387904", "S4611686018427387905", "line S"),
        ("Rd4", "Rd5", "root path key"),
        ("C8", "C?", "not a digest"),
        ("-rmd160", "-md5", "not a digest"),
    ],
)
def test_values_that_have_not_their_form_are_refused(old: str, new: str, message: str) -> None:
    text = FULL.export().decode()
    assert old in text
    with pytest.raises(FormatError, match=message):
        Manifest.parse(text.replace(old, new).encode())


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    assert survives(Manifest.parse, [FULL.export()]) > 0.5
