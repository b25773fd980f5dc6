"""Objects as they are stored: both engines, streams in pieces, limits, hostile streams."""

import random
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.compression import (
    Decompressor,
    Engine,
    compress,
    decompress,
    new_compressor,
)
from cvmfs_graphdriver.repository.errors import FormatError
from tests.support.mutations import survives

TEXT = b"".join(b"%d squared is %d\n" % (number, number**2) for number in range(3000))
FORMS = [(Compression.ZLIB, Engine.ZLIB), (Compression.ZLIB, Engine.ISAL), (Compression.NONE, Engine.ISAL)]


@pytest.mark.parametrize(("compression", "engine"), FORMS)
@given(content=st.binary(max_size=5000), size=st.integers(1, 700))
def test_what_is_stored_comes_out(
    compression: Compression, engine: Engine, content: bytes, size: int
) -> None:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    compressor = new_compressor(compression, engine)
    stored = b"".join(compressor.compress(piece) for piece in pieces) + compressor.flush()
    decompressor = Decompressor(compression, limit=len(content))
    out = b"".join(decompressor.feed(stored[at : at + size]) for at in range(0, len(stored), size))
    assert out + decompressor.finish() == content
    assert decompress(compress(content, compression, engine), compression) == content


@pytest.mark.parametrize("engine", Engine)
def test_streams_are_rfc_1950(engine: Engine) -> None:
    stored = compress(TEXT, engine=engine)
    assert zlib.decompress(stored) == TEXT
    assert stored[0] == 0x78


def test_zlib_engine_makes_the_bytes_of_stock_tools() -> None:
    assert compress(TEXT, engine=Engine.ZLIB) == zlib.compress(TEXT, 6)
    assert compress(TEXT, engine=Engine.ZLIB)[:2] == b"\x78\x9c"


_REPETITIVE = """
import hashlib, random
from cvmfs_graphdriver.repository.compression import compress
chance, digest = random.Random(1), hashlib.sha1()
for _ in range(10_000):
    pattern = chance.randbytes(chance.randrange(1, 40))
    digest.update(compress((pattern * 3000)[: chance.randrange(1, 3000)]))
print(digest.hexdigest())
"""
"""What ISA-L's level 2, left alone, makes differently in each process (some ten of these)."""


def test_equal_content_makes_equal_objects_in_every_process() -> None:
    processes = [
        subprocess.run((sys.executable, "-c", _REPETITIVE), stdout=subprocess.PIPE, check=True)
        for _ in range(3)
    ]
    assert len({process.stdout for process in processes}) == 1


@pytest.mark.parametrize("piece", [1, 7, 10_000_000])
def test_no_more_than_the_limit_comes_out(piece: int) -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    decompressor = Decompressor(limit=100_000)
    out: list[bytes] = []
    pieces = (bomb[at : at + piece] for at in range(0, len(bomb), piece))
    with pytest.raises(FormatError, match="more bytes"):
        out.extend(map(decompressor.feed, pieces))
    assert sum(map(len, out)) <= 100_000
    with pytest.raises(FormatError, match="more bytes"):
        decompress(TEXT, Compression.NONE, limit=len(TEXT) - 1)
    assert decompress(compress(TEXT), limit=len(TEXT)) == TEXT


@pytest.mark.parametrize("engine", Engine)
def test_every_truncation_is_refused(engine: Engine) -> None:
    stored = compress(TEXT[:2000], engine=engine)
    for length in range(len(stored)):
        with pytest.raises(FormatError):
            decompress(stored[:length])


def test_bytes_behind_the_end_are_refused() -> None:
    stored = compress(TEXT)
    with pytest.raises(FormatError, match="after the end"):
        decompress(stored + b"\0")
    decompressor = Decompressor()
    decompressor.feed(stored)
    with pytest.raises(FormatError, match="after the end"):
        decompressor.feed(b"x")


def test_big_content_in_small_pieces() -> None:
    noise = random.Random(1).randbytes(3_000_000) + bytes(9_000_000)
    for engine in Engine:
        stored = compress(noise, engine=engine)
        decompressor = Decompressor(limit=len(noise))
        out = [decompressor.feed(stored[at : at + 4096]) for at in range(0, len(stored), 4096)]
        assert b"".join([*out, decompressor.finish()]) == noise


@pytest.mark.fuzz
def test_no_input_surprises() -> None:
    good = [compress(TEXT[:500], engine=engine) for engine in Engine] + [compress(b"")]
    assert survives(lambda data: decompress(data, limit=10_000), good) > 0.2
