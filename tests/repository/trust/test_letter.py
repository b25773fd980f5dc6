"""The frame of signed files: cut, joined, hostile."""

import pytest

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import FormatError
from cvmfs_graphdriver.repository.trust.letter import Letter, encode_letter
from tests.support.mutations import survives


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_is_signed_is_the_digests_text(algorithm: Algorithm) -> None:
    signed = []

    def sign(text: bytes) -> bytes:
        signed.append(text)
        return b"\n--\nsignature\0"

    data = encode_letter(b"Cx\nD1\n", algorithm, sign)
    text = Digest.of(b"Cx\nD1\n", algorithm).text.encode()
    assert data == b"Cx\nD1\n--\n" + text + b"\n\n--\nsignature\0"
    letter = Letter.parse(data)
    assert letter.body == b"Cx\nD1\n"
    assert letter.signature == b"\n--\nsignature\0"
    assert signed == [text] == [letter.signed_text]
    assert letter.digest_matches()


def test_another_body_does_not_match() -> None:
    data = encode_letter(b"Cx\n", Algorithm.SHA1, lambda _: b"s")
    assert not Letter.parse(data.replace(b"Cx", b"Cy")).digest_matches()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Cx\n",
        b"Cx\n--",
        b"Cx\n--\n",
        b"Cx\n--\n" + b"a" * 40,
        b"Cx\n--\n" + b"a" * 40 + b"\n",
        b"Cx\n--\nnot hex\nsignature",
        b"Cx\n--\n\xff\nsignature",
    ],
)
def test_broken_frames_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Letter.parse(data)


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    good = [encode_letter(b"Cx\nD1\n", algorithm, lambda _: b"signature") for algorithm in Algorithm]
    assert survives(lambda data: Letter.parse(data).digest_matches(), good) > 0.5
