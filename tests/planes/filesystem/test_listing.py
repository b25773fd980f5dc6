"""Packed directories."""

import stat
import struct

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.planes.filesystem.listing import Listing, Listings

BASE = 7 << 32


def listing(names: list[bytes], base: int = 0) -> Listing:
    return Listing(
        [
            wire.directory_entry_plus(name, 5, stat.S_IFREG, base + position, wire.no_entry())
            for position, name in enumerate(names, 1)
        ],
        base,
    )


def names_in(packed: bytes, head: int) -> list[tuple[bytes, int]]:
    """Names and the offsets behind them."""
    found = []
    at = 0
    while at < len(packed):
        _, following, length, _ = struct.unpack_from("=QQII", packed, at + head)
        start = at + head + 24
        found.append((packed[start : start + length], following))
        at = start + -(-length // 8) * 8
    assert at == len(packed)
    return found


@given(
    st.lists(st.binary(min_size=1, max_size=255), max_size=60, unique=True),
    st.integers(600, 5000),
    st.sampled_from([0, BASE]),
)
def test_pieces_make_the_whole(names: list[bytes], size: int, base: int) -> None:
    packed = listing(names, base)
    for give, head in ((packed.plus, 128), (packed.plain, 0)):
        found: list[bytes] = []
        offset = 0
        while piece := give(offset, size):
            assert len(piece) <= size
            entries = names_in(piece, head)
            found += [name for name, _ in entries]
            offset = entries[-1][1]
        assert found == names


def test_offsets_that_nobody_gave() -> None:
    packed = listing([b"a", b"b"], BASE)
    assert packed.plus(BASE + 99, 4096) == packed.plain(BASE + 99, 4096) == b""
    assert len(names_in(packed.plus(0, 4096), 128)) == 2
    assert packed.plus(0, 10) == b"", "not even one entry fits"


def test_listings_are_kept_up_to_a_number_of_entries() -> None:
    listings = Listings(10)
    made: list[int] = []

    def get(number: int, entries: int) -> Listing:
        def make() -> Listing:
            made.append(number)
            return listing([b"%d" % count for count in range(entries)])

        return listings.get((number, 0), make)

    assert get(1, 4) is get(1, 4)
    get(2, 4)
    get(1, 4)
    get(3, 4)
    assert made == [1, 2, 3]
    get(1, 4)
    get(2, 4)
    assert made == [1, 2, 3, 2], "the one used longest ago had to go"
    get(4, 500)
    get(4, 500)
    assert made == [1, 2, 3, 2, 4], "one that is too big for all is kept until another comes"
