import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.document import Document
from cvmfs_graphdriver.oci.errors import ImageFormatError
from tests.support.mutations import generated


def _parse(data: bytes, **options: int) -> Document:
    return Document.parse("it", data, ImageFormatError, **options)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff{}", "not JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "levels deep"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "levels deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageFormatError, match=reason):
        _parse(data)


def test_a_document_that_is_too_long_is_not_even_decoded() -> None:
    with pytest.raises(ImageFormatError, match="longer than the limit of 10 bytes"):
        _parse(b'{"a": "bcdef"}', limit=10)


@pytest.mark.parametrize("value", [None, 1, [], {}, True])
def test_members_have_the_type_that_is_asked_for(value: object) -> None:
    document = _parse(json.dumps({"a": value}).encode())
    with pytest.raises(ImageFormatError, match="it: 'a' is not a string"):
        document.text("a")


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", 1 << 63])
def test_natural_numbers_are_neither_negative_nor_anything_else(value: object) -> None:
    with pytest.raises(ImageFormatError, match="non-negative integer"):
        _parse(json.dumps({"a": value}).encode()).natural("a")


def test_lists_and_objects_are_typed_to_their_members() -> None:
    document = _parse(b'{"a": ["x", 1], "b": {"k": 1}, "c": [1], "d": 7, "n": null}')
    for action in (
        lambda: document.texts("a"),
        lambda: document.text_map("b"),
        lambda: list(document.objects("c")),
        lambda: list(document.objects("d")),
        lambda: document.member("d"),
    ):
        with pytest.raises(ImageFormatError):
            action()
    assert document.texts("n") == ()
    assert document.text_map("n") == {}
    assert document.optional_text("n") == ""


@generated
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ImageFormatError):
        _parse(data)
