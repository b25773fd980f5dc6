import gzip
import io
import os
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.layer.compression import Encoding, decompressed, detect
from tests.support.mutations import generated

_DATA = random.Random(7).randbytes(300_000) + b"a" * 700_000 + bytes(100_000)
_SKIPPABLE = b"\x53\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"


class _Dribble:
    """A source that gives less than it is asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def _read(data: bytes, *, most: int = 1 << 20, size: int = 1 << 16) -> bytes:
    stream = decompressed("layer x", _Dribble(data, most))
    blocks = list(iter(lambda: stream.read(size), b""))
    assert all(len(block) <= size for block in blocks)
    return b"".join(blocks)


def _zstd(data: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(data)


def _zstd_streamed(data: bytes) -> bytes:
    """Without the content's size in the header, with a checksum at the end."""
    stream = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compressobj()
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    "blob",
    [
        gzip.compress(_DATA),
        gzip.compress(_DATA[:5]) + gzip.compress(b"") + gzip.compress(_DATA[5:]),
        _zstd(_DATA),
        _zstd_streamed(_DATA),
        _zstd(_DATA, level=19),
        _zstd(_DATA[:5]) + _SKIPPABLE + _zstd(b"") + _zstd_streamed(_DATA[5:]),
        _SKIPPABLE + _zstd(_DATA),
        _DATA,
    ],
    ids=["gzip", "gzip-members", "zstd", "zstd-streamed", "zstd-19", "zstd-frames", "zstd-skip", "plain"],
)
@pytest.mark.parametrize("most", [1, 1000, 1 << 20])
def test_every_encoding_gives_the_stream(blob: bytes, most: int) -> None:
    if most == 1:
        blob = blob[:2000] if blob is _DATA else blob
        expected = _DATA[:2000] if len(blob) == 2000 else _DATA
    else:
        expected = _DATA
    assert _read(blob, most=most) == expected


@pytest.mark.parametrize("data", [b"", b"\x1f", b"\x28\xb5", b"abc"])
def test_a_short_stream_is_plain(data: bytes) -> None:
    assert _read(data) == data


def test_the_encoding_can_be_asked_for() -> None:
    kinds = [detect(io.BytesIO(b))[0] for b in (gzip.compress(b""), _zstd(b""), _SKIPPABLE, b"ustar")]
    assert kinds == [Encoding.GZIP, Encoding.ZSTD, Encoding.ZSTD, Encoding.PLAIN]


@pytest.mark.parametrize("compress", [gzip.compress, _zstd, _zstd_streamed])
@pytest.mark.parametrize("keep", [4, 7, 100, 200_000, -1, -5, -9])
def test_a_stream_cut_short_is_refused(compress: object, keep: int) -> None:
    with pytest.raises(LayerFormatError, match="layer x is (truncated|damaged)"):
        _read(compress(_DATA)[:keep])  # type: ignore[operator]


@pytest.mark.parametrize("compress", [gzip.compress, _zstd])
@pytest.mark.parametrize("behind", [b"x", b"\0\0\0\0", b"garbage that goes on for a while", bytes(70_000)])
def test_what_follows_the_stream_is_refused(compress: object, behind: bytes) -> None:
    with pytest.raises(LayerFormatError):
        _read(compress(_DATA) + behind)  # type: ignore[operator]


def test_a_wrong_checksum_is_refused() -> None:
    for blob in (gzip.compress(_DATA), _zstd_streamed(_DATA)):
        damaged = bytearray(blob)
        damaged[100_000] ^= 0xFF
        with pytest.raises(LayerFormatError):
            _read(bytes(damaged))


def _bomb(count: int) -> bytes:
    """A zstd frame of ``count`` blocks, each 4 bytes that stand for 128 KiB."""
    block = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (0 << 3 | 0 << 1 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x50" + block * count + last


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_costs_no_memory(kind: str) -> None:
    size = 1 << 30
    if kind == "gzip":
        member = gzip.compress(bytes(size >> 4), 9)
        blob = member * 16
    else:
        blob = _bomb(size >> 17)
    assert len(blob) < size // 500
    tracemalloc.start()
    try:
        stream = decompressed("layer x", io.BytesIO(blob))
        total = sum(len(block) for block in iter(lambda: stream.read(1 << 18), b""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 8 << 20


def test_a_window_that_is_too_large_is_refused() -> None:
    huge_window = bytes([0x00, (31 - 10) << 3])
    with pytest.raises(LayerFormatError, match="damaged"):
        _read(b"\x28\xb5\x2f\xfd" + huge_window + b"\x01\x00\x00")


@generated
@given(st.sampled_from([gzip.compress(b"hello" * 50), _zstd_streamed(b"hello" * 50)]), st.data())
def test_damage_anywhere_is_refused_or_harmless(blob: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(blob) - 1))
    damaged = bytearray(blob)
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        found = _read(bytes(damaged))
    except LayerFormatError:
        return
    # The first bytes decide what it is, and a gzip header has fields that mean nothing to us.
    assert found in (b"hello" * 50, bytes(damaged))


def test_random_bytes_end_somehow() -> None:
    for _ in range(200):
        for magic in (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
            with pytest.raises(LayerFormatError):
                _read(magic + os.urandom(300))
