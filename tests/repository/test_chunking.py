"""The chunk detector, against the format's rule spelled out, and against cuts that the real server made."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.repository.catalog.catalog import Catalog
from cvmfs_graphdriver.repository.catalog.entry import EntryFlag
from cvmfs_graphdriver.repository.chunking import ChunkDetector, ChunkSizes
from cvmfs_graphdriver.repository.compression import Engine, compress, decompress
from cvmfs_graphdriver.repository.digest import Digest, ObjectName, Suffix
from tests.repository.catalog.test_writer import all_catalogs
from tests.support.fixtures import NAMES, unpack

KILO = 1024


def by_the_rule(data: bytes, sizes: ChunkSizes) -> list[int]:
    """The rule of format reference section 5, byte by byte."""
    cuts: list[int] = []
    last = 0
    while True:
        mixed = 0
        cut = None
        for at in range(last + sizes.minimum - 32, len(data)):
            if at == last + sizes.maximum:
                cut = at
                break
            mixed = (mixed << 1 ^ data[at]) & 0xFFFFFFFF
            if at >= last + sizes.minimum and abs(mixed - 0x7FFFFFFF) < sizes.threshold:
                cut = at
                break
        if cut is None:
            return cuts
        cuts.append(cut)
        last = cut


def detect(data: bytes, sizes: ChunkSizes, piece: int) -> list[int]:
    detector = ChunkDetector(sizes)
    return [cut for at in range(0, len(data), piece) for cut in detector.feed(data[at : at + piece])]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.binary(min_size=1, max_size=300),
    random=st.randoms(use_true_random=False),
    length=st.integers(0, 60_000),
    minimum=st.integers(33, 4000),
    average=st.integers(1, 70_000),
    more=st.integers(1, 9000),
    piece=st.integers(1, 50_000),
)
def test_cuts_are_those_of_the_rule(seed, random, length, minimum, average, more, piece) -> None:  # type: ignore[no-untyped-def]
    data = bytes(random.choice(seed) for _ in range(length))
    sizes = ChunkSizes(minimum, average, minimum + more)
    assert detect(data, sizes, piece) == by_the_rule(data, sizes)


@settings(max_examples=200, deadline=None)
@given(
    random=st.randoms(use_true_random=False),
    average=st.integers(60_000, 40_000_000),
    near=st.lists(st.integers(-2, 2), min_size=1, max_size=20),
    below=st.booleans(),
    piece=st.integers(1, 50_000),
)
def test_values_that_just_are_cuts_and_just_are_none(random, average, near, below, piece) -> None:  # type: ignore[no-untyped-def]
    """Random bytes hardly ever come near to the middle, so values at the threshold are put among them."""
    sizes = ChunkSizes(64, average, 20_000)
    data = b""
    for offset in near:
        distance = sizes.threshold + offset
        mixed = 0x7FFFFFFF - distance if below else 0x7FFFFFFF + distance
        # 32 bytes of one bit each, the oldest first, mix to the number of those bits.
        data += random.randbytes(random.randrange(3000)) + bytes(map(int, f"{mixed:032b}"))
    data += random.randbytes(100)
    assert detect(data, sizes, piece) == by_the_rule(data, sizes)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("lite-", "chunked"))])
def test_cuts_and_objects_are_those_of_the_real_server(name: str, tmp_path: Path) -> None:
    sizes = ChunkSizes() if name == "chunked-default" else ChunkSizes(64 * KILO, 128 * KILO, 256 * KILO)
    published = unpack(name, tmp_path / "fixture")
    catalogs = tmp_path / "catalogs"
    catalogs.mkdir()
    compared = 0
    for file, mountpoint in all_catalogs(published, catalogs):
        catalog = Catalog.open(file, mountpoint=mountpoint)
        pending = [mountpoint]
        while pending:
            path = pending.pop()
            for entry in catalog.listing(path):
                child = path + b"/" + entry.name
                if entry.is_directory and EntryFlag.NESTED_MOUNTPOINT not in entry.flags:
                    pending.append(child)
                chunks = catalog.chunks(child)
                if not chunks:
                    continue
                names = [ObjectName(chunk.digest, Suffix.PARTIAL) for chunk in chunks]
                pieces = [decompress(published.stored(n.path), entry.compression) for n in names]
                assert [len(piece) for piece in pieces] == [chunk.size for chunk in chunks]
                cuts = detect(b"".join(pieces), sizes, 1 << 20)
                assert cuts == [chunk.offset for chunk in chunks[1:]]
                for piece, chunk in zip(pieces, chunks, strict=True):
                    stored = compress(piece, entry.compression, Engine.ZLIB)
                    assert Digest.of(stored, entry.hash_algorithm) == chunk.digest
                compared += 1
        catalog.close()
    assert compared
