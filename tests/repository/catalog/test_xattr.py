"""The blob of extended attributes: its bytes, its limits, hostile ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.catalog.xattr import encode_xattrs, parse_xattrs
from cvmfs_graphdriver.repository.errors import FormatError
from tests.support.mutations import survives

TWO = {b"user.b": b"\0\xff", b"user.a": b""}


def test_bytes_are_those_of_the_format() -> None:
    assert encode_xattrs(TWO) == b"\x01\x02" + b"\x06\x00user.a" + b"\x06\x02user.b\0\xff"
    assert encode_xattrs({}) == b""
    assert parse_xattrs(b"") == {}


@given(st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=255), max_size=40))
def test_what_is_written_is_read_again(attributes: dict[bytes, bytes]) -> None:
    assert parse_xattrs(encode_xattrs(attributes)) == attributes


@pytest.mark.parametrize(
    "attributes",
    [
        {b"n" * 256: b""},
        {b"n": b"v" * 256},
        {b"": b"v"},
        {b"%d" % number: b"" for number in range(256)},
    ],
)
def test_what_does_not_fit_is_refused(attributes: dict[bytes, bytes]) -> None:
    with pytest.raises(FormatError, match="does not fit|exceed the limit"):
        encode_xattrs(attributes)


@pytest.mark.parametrize(
    "blob", [b"\x01", b"\x02\x00", b"\x01\x01", b"\x01\x01\x01\x00", b"\x01\x01\x01\x05ab"]
)
def test_broken_blobs_are_refused(blob: bytes) -> None:
    with pytest.raises(FormatError, match="extended attributes"):
        parse_xattrs(blob)


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    assert survives(parse_xattrs, [encode_xattrs(TWO), encode_xattrs({b"n" * 255: b"v" * 255})]) > 0.01
