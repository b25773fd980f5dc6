"""The tar stream inside a layer's blob: plain, gzip (RFC 1952) or zstd (RFC 8878).

Owns: decompression in bounded pieces, concatenated members, and refusing whatever follows the last one. As in
Docker, the first bytes decide and not the media type, which is wrong in some images. Must not know: what the
stream contains.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, cast

import zstandard
from isal import isal_zlib
from isal.igzip_lib import IsalError

from cvmfs_graphdriver.oci.errors import LayerFormatError
from cvmfs_graphdriver.oci.verify import ByteSource

__all__ = ["Encoding", "decompressed", "detect"]

_BLOCK: Final = 1 << 18
_Damaged = cast("type[Exception]", IsalError)  # the stubs declare it as a value
_GZIP: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 31
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_ZSTD_MAX_BLOCK: Final = 128 << 10
_ZSTD_RUN: Final = 1
_ZSTD_MAX_WINDOW: Final = 128 << 20
"""The largest window that decoders are advised to support, hence the most memory a layer can claim."""


class Encoding(Enum):
    """How a layer's tar stream is compressed."""

    PLAIN = "plain"
    GZIP = "gzip"
    ZSTD = "zstd"


class _Pushback:
    """A source whose first bytes have been read ahead."""

    def __init__(self, first: bytes, source: ByteSource) -> None:
        self._first = first
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._source.read(size)


class _GzipReader:
    """The content of consecutive gzip members.

    >>> import gzip, io
    >>> _GzipReader("layer", io.BytesIO(gzip.compress(b"a") + gzip.compress(b"b"))).read(9)
    b'a'
    """

    def __init__(self, name: str, source: ByteSource) -> None:
        self._name = name
        self._source = source
        self._member = isal_zlib.decompressobj(_GZIP_FORMAT)
        self._fresh = True
        self._input = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if not self._input:
                self._input = self._source.read(_BLOCK)
                if not self._input:
                    if not self._fresh:
                        raise LayerFormatError(f"{self._name} is truncated: its gzip stream does not end")
                    return b""
            if self._fresh and self._input[0] != _GZIP[0]:
                raise LayerFormatError(f"{self._name} is followed by bytes that are not gzip")
            data = self._inflate(size)
            if data:
                return data

    def _inflate(self, size: int) -> bytes:
        try:
            data = self._member.decompress(self._input, size)
        except _Damaged as error:
            raise LayerFormatError(f"{self._name} is damaged: {error}") from error
        self._fresh = False
        if self._member.eof:
            self._input = self._member.unused_data
            self._member = isal_zlib.decompressobj(_GZIP_FORMAT)
            self._fresh = True
        else:
            self._input = self._member.unconsumed_tail
        return bytes(data)


class _ZstdReader:
    """The content of consecutive zstd frames.

    The decoder is fed one block at a time: a block never has more than 128 KiB of content (RFC 8878, section
    3.1.1.2), while a handful of bytes can encode thousands of blocks; and this detects a frame without its
    last block, which the library does not report.
    """

    def __init__(self, name: str, source: ByteSource) -> None:
        self._name = name
        self._source = source
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        self._blocks = self._decode()
        self._content = b""

    def read(self, size: int, /) -> bytes:
        if not self._content:
            try:
                self._content = next(self._blocks, b"")
            except zstandard.ZstdError as error:
                raise LayerFormatError(f"{self._name} is damaged: {error}") from error
        data, self._content = self._content[:size], self._content[size:]
        return data

    def _decode(self) -> Iterator[bytes]:
        """Yield the content of every block of every frame."""
        while magic := self._source.read(1):
            magic += self._exactly(3)
            if magic == _ZSTD:
                yield from filter(None, self._decode_frame())
            elif _is_skippable(magic):
                left = int.from_bytes(self._exactly(4), "little")
                while left:
                    left -= len(self._exactly(min(left, _BLOCK)))
            else:
                raise LayerFormatError(f"{self._name} is followed by bytes that are not zstd")

    def _decode_frame(self) -> Iterator[bytes]:
        frame = self._decompressor.decompressobj()
        descriptor = self._exactly(1)[0]
        single_segment = descriptor & 0x20
        header_size = (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
        header_size += (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
        yield frame.decompress(_ZSTD + bytes([descriptor]) + self._exactly(header_size))
        last = False
        while not last:
            header = self._exactly(3)
            number = int.from_bytes(header, "little")
            last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
            if size > _ZSTD_MAX_BLOCK:
                raise LayerFormatError(f"{self._name} is damaged: a zstd block claims {size} bytes")
            yield frame.decompress(header + self._exactly(1 if kind == _ZSTD_RUN else size))
        if descriptor & 4:
            yield frame.decompress(self._exactly(4))
        if not frame.eof:
            raise LayerFormatError(f"{self._name} is damaged: a zstd frame does not end where its blocks do")

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size) if size else b""
        while len(data) < size:
            more = self._source.read(size - len(data))
            if not more:
                raise LayerFormatError(f"{self._name} is truncated: its zstd stream does not end")
            data += more
        return data


def _is_skippable(magic: bytes) -> bool:
    return magic[1:] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50


def detect(source: ByteSource) -> tuple[Encoding, ByteSource]:
    """The encoding of ``source``, and a source that still returns all of its bytes."""
    first = b""
    while len(first) < len(_ZSTD):
        more = source.read(len(_ZSTD) - len(first))
        if not more:
            break
        first += more
    encoding = Encoding.PLAIN
    if first.startswith(_GZIP):
        encoding = Encoding.GZIP
    elif first == _ZSTD or _is_skippable(first):
        encoding = Encoding.ZSTD
    return encoding, _Pushback(first, source)


def decompressed(name: str, source: ByteSource) -> ByteSource:
    """The tar stream in ``source``; ``name`` identifies it in errors.

    Reading it raises LayerFormatError: the compressed data is damaged, truncated, or followed by other bytes.
    """
    encoding, whole = detect(source)
    if encoding is Encoding.GZIP:
        return _GzipReader(name, whole)
    if encoding is Encoding.ZSTD:
        return _ZstdReader(name, whole)
    return whole
