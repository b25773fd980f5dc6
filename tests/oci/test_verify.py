import io

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ContentMismatchError, ReferenceFormatError
from cvmfs_graphdriver.oci.verify import DigestReader, Verifier, read_to_end

_DATA = b"0123456789" * 100


def _read(data: bytes, size: int | None = len(_DATA)) -> bytes:
    verifier = Verifier("the blob", ContentDigest.of(_DATA), size)
    return read_to_end(DigestReader(io.BytesIO(data), verifier), 64)


def test_the_right_bytes_pass() -> None:
    assert _read(_DATA) == _DATA
    assert _read(_DATA, None) == _DATA


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_DATA[:-1], "ended after 999 of the announced 1000 bytes"),
        (_DATA + b"x", "longer than the announced 1000 bytes"),
        (b"", "ended after 0 of"),
        (b"x" + _DATA[1:], "it has sha256:"),
    ],
)
def test_other_bytes_are_an_error_before_the_end(data: bytes, reason: str) -> None:
    with pytest.raises(ContentMismatchError, match=f"the blob.*{reason}"):
        _read(data)


def test_an_endless_lie_is_cut_where_the_announced_size_is() -> None:
    class Endless:
        given = 0

        def read(self, size: int, /) -> bytes:
            self.given += size
            return bytes(size)

    source = Endless()
    with pytest.raises(ContentMismatchError, match="longer"):
        read_to_end(DigestReader(source, Verifier("it", ContentDigest.of(b""), 5000)), 1000)
    assert source.given <= 6000


def test_digests_of_every_algorithm_are_checked() -> None:
    digest = ContentDigest.parse(
        "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63"
        "b931bd47417a81a538327af927da3e"
    )
    assert read_to_end(DigestReader(io.BytesIO(b""), Verifier("it", digest, 0))) == b""


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha1:" + "0" * 40, "sha256:" + "g" * 64])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ReferenceFormatError):
        ContentDigest.parse(text)
