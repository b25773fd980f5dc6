import gzip
import io

import pytest

from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.errors import ContentMismatchError, LayerFormatError
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.oci.verify import DigestReader, Verifier
from tests.support.images import TestLayer
from tests.support.tars import tar_of

_TAR = tar_of({"a": None, "a/b": b"hello", ".wh.c": b"", "a/.wh..wh..opq": b""})


def _blob(data: bytes, expected: bytes) -> DigestReader:
    return DigestReader(io.BytesIO(data), Verifier("the blob", ContentDigest.of(expected), len(expected)))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "plain"])
def test_entries_come_with_their_content_and_whiteouts_as_they_are(compression: str) -> None:
    blob = TestLayer(_TAR, compression).blob
    layer = LayerStream("layer x", _blob(blob, blob), ContentDigest.of(_TAR))
    found = {entry.path: layer.read(100) for entry in layer}
    assert found == {b"/a": b"", b"/a/b": b"hello", b"/.wh.c": b"", b"/a/.wh..wh..opq": b""}


def test_a_tar_stream_of_another_digest_is_refused_before_the_end() -> None:
    blob = gzip.compress(_TAR)
    layer = LayerStream("layer x", _blob(blob, blob), ContentDigest.of(_TAR + bytes(512)))
    seen = []
    with pytest.raises(ContentMismatchError, match="tar stream of layer x"):
        seen += [entry.path for entry in layer]
    assert seen == []


def test_a_blob_of_another_digest_is_refused_before_the_end() -> None:
    blob = gzip.compress(_TAR, mtime=1)
    lie = gzip.compress(_TAR, mtime=2)
    layer = LayerStream("layer x", _blob(lie, blob), ContentDigest.of(_TAR))
    with pytest.raises(ContentMismatchError, match="the blob"):
        list(layer)


def test_what_hides_behind_the_end_of_the_tar_stream_is_verified_too() -> None:
    hidden = _TAR + b"hidden"
    blob = gzip.compress(hidden)
    assert len(list(LayerStream("x", _blob(blob, blob), ContentDigest.of(hidden)))) == 4
    with pytest.raises(ContentMismatchError):
        list(LayerStream("x", _blob(blob, blob), ContentDigest.of(_TAR)))


def test_a_damaged_layer_is_named() -> None:
    with pytest.raises(LayerFormatError, match="^layer sha256:x: it is damaged"):
        list(LayerStream("layer sha256:x", io.BytesIO(b"no tar at all" * 100)))
