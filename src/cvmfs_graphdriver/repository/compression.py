"""How objects are stored: RFC 1950 streams or plain bytes (CernVM-FS format reference, section 1.5).

Owns: compressing and decompressing whole objects and streams, with limits, since no stated size is trusted.
Must not know: digests (they cover the stored bytes, so callers compute them).

Two engines write zlib streams. ``ISAL`` is fast and makes a few per cent more bytes; ``ZLIB`` makes the
very bytes that stock tools make, so that objects deduplicate against theirs. Every client reads both.
Either makes equal streams of equal content, fed in equal pieces; docs/adr/0006-isal.md says what that takes.
"""

import zlib
from enum import StrEnum
from typing import Protocol, cast

from isal import isal_zlib
from isal.igzip_lib import IsalError

from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.errors import FormatError

__all__ = ["Compressor", "Decompressor", "Engine", "compress", "decompress", "most_stored", "new_compressor"]

_PIECE = 1 << 20
_ISAL_LEVEL = 2
_ISAL_MEMORY = 5  # shorter blocks; the result is 0.4 % smaller than with the default
_RAW = -15
_HEAD = b"\x78\x01" + b"\x00\x01\x00\xfe\xff"  # the zlib header, and that of a stored block of one byte
_EMPTY = b"\x78\x01\x03\x00\x00\x00\x00\x01"
_WORST, _OVERHEAD = 2, 1 << 16
"""Compressed data is never longer than twice the content and a little: longer data is empty blocks."""
_Broken = cast("type[Exception]", IsalError)  # the stubs call it a value


class Engine(StrEnum):
    """The library that makes zlib streams."""

    ISAL = "isal"
    ZLIB = "zlib"


class Compressor(Protocol):
    """A compression in progress."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    """Stores bytes as they are."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _Isal:
    """A zlib stream by ISA-L.

    ISA-L mistakes an address in memory for the third byte of a stream that begins without a history, and
    finds other matches for that in the next process. So the first byte is stored, and is the history of the
    rest.
    """

    def __init__(self) -> None:
        self._rest: Compressor | None = None
        self._sum = 1

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        self._sum = isal_zlib.adler32(data, self._sum)
        if self._rest is not None:
            return self._rest.compress(data)
        if not data:
            return b""
        first = bytes(data[:1])
        self._rest = isal_zlib.compressobj(
            _ISAL_LEVEL, isal_zlib.DEFLATED, _RAW, _ISAL_MEMORY, isal_zlib.Z_DEFAULT_STRATEGY, first
        )
        return b"".join((_HEAD, first, self._rest.compress(memoryview(data)[1:])))

    def flush(self) -> bytes:
        if self._rest is None:
            return _EMPTY
        return self._rest.flush() + self._sum.to_bytes(4, "big")


def new_compressor(compression: Compression = Compression.ZLIB, engine: Engine = Engine.ISAL) -> Compressor:
    """A compressor to feed piece by piece."""
    if compression is Compression.NONE:
        return _Plain()
    if engine is Engine.ISAL:
        return _Isal()
    return zlib.compressobj()


def compress(
    data: bytes | bytearray | memoryview,
    compression: Compression = Compression.ZLIB,
    engine: Engine = Engine.ISAL,
) -> bytes:
    """``data`` as it is stored."""
    if compression is Compression.NONE:
        return bytes(data)
    if engine is Engine.ISAL:
        compressor = _Isal()
        return compressor.compress(data) + compressor.flush()
    return zlib.compress(data)


def most_stored(size: int, compression: Compression = Compression.ZLIB) -> int:
    """The most bytes that content of ``size`` bytes can need when it is stored."""
    return size if compression is Compression.NONE else _WORST * size + _OVERHEAD


class Decompressor:
    """Decompresses a stored object as it arrives.

    ``limit`` is the most bytes that may come out, None for no limit; it limits how many may go in, too.
    Raises FormatError: no zlib stream, bytes behind its end, an end that is missing, or more than ``limit``.
    """

    def __init__(self, compression: Compression = Compression.ZLIB, *, limit: int | None = None) -> None:
        self._stream = isal_zlib.decompressobj() if compression is Compression.ZLIB else None
        self._left = limit
        self._acceptable = None if limit is None else most_stored(limit, compression)

    def feed(self, data: bytes) -> bytes:
        """Feed ``data``; returns what it decompresses to."""
        if self._stream is None:
            return self._account(data)
        if self._acceptable is not None:
            self._acceptable -= len(data)
            if self._acceptable < 0:
                raise FormatError("there is more compressed data than content of this size can need")
        pieces = []
        while data:
            if self._stream.eof:
                raise FormatError("there are bytes after the end of the compressed data")
            try:
                piece = self._stream.decompress(data, _PIECE)
            except _Broken as error:
                raise FormatError(f"the compressed data is broken: {error}") from error
            pieces.append(self._account(piece))
            data = self._stream.unconsumed_tail or self._stream.unused_data
            if not piece and data and not self._stream.eof:
                raise FormatError("the compressed data is broken: it does not end")
        return b"".join(pieces)

    def finish(self) -> bytes:
        """The rest, once everything has been fed."""
        if self._stream is None:
            return b""
        try:
            rest = self._account(self._stream.flush())
        except _Broken as error:
            raise FormatError(f"the compressed data is broken: {error}") from error
        if not self._stream.eof:
            raise FormatError("the compressed data is cut short")
        return rest

    def _account(self, data: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise FormatError("the compressed data decompresses to more bytes than expected")
        return data


def decompress(
    data: bytes, compression: Compression = Compression.ZLIB, *, limit: int | None = None
) -> bytes:
    """A whole stored object's content. Raises FormatError as ``Decompressor`` does."""
    decompressor = Decompressor(compression, limit=limit)
    return decompressor.feed(data) + decompressor.finish()
