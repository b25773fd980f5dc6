"""Packed directories."""

import stat
import struct
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_graphdriver.kernel.fuse import wire
from cvmfs_graphdriver.planes.filesystem.listing import Item, Listing, Listings

BASE = 7 << 32


def listing(names: list[bytes], start: int = 0, directory: int = 1, *, is_last: bool = True) -> Listing:
    """Offsets leave gaps, as rows of a catalog do."""
    return Listing(
        (directory, 0),
        start,
        [
            Item(wire.directory_entry_plus(name, 5, stat.S_IFREG, offset, wire.no_entry()), offset)
            for offset, name in enumerate_by_three(names, start)
        ],
        is_last=is_last,
    )


def enumerate_by_three(names: list[bytes], start: int) -> Iterator[tuple[int, bytes]]:
    return ((start + 3 * position, name) for position, name in enumerate(names, 1))


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
        offset = base
        while piece := give(offset, size):
            assert len(piece) <= size
            entries = names_in(piece, head)
            found += [name for name, _ in entries]
            offset = entries[-1][1]
        assert found == names


def test_offsets_that_nobody_gave() -> None:
    packed = listing([b"a", b"b"], BASE)
    assert packed.plus(BASE + 99, 4096) == packed.plain(BASE + 99, 4096) == b""
    assert [name for name, _ in names_in(packed.plus(BASE + 4, 4096), 128)] == [b"b"]
    assert packed.plus(BASE, 10) == b"", "not even one entry fits"


def test_listings_are_kept_up_to_a_number_of_entries() -> None:
    listings = Listings(10)
    made: list[int] = []

    def get(number: int, entries: int) -> Listing:
        def make() -> Listing:
            made.append(number)
            return listing([b"%d" % count for count in range(entries)], directory=number)

        return listings.get((number, 0), 0, make)

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


def test_readers_of_one_directory_at_different_places_do_not_disturb_one_another() -> None:
    listings = Listings(100)
    made: list[int] = []

    def get(offset: int) -> Listing:
        def make() -> Listing:
            made.append(offset)
            return listing([b"%d" % count for count in range(10)], offset, is_last=offset >= 300)

        return listings.get((1, 0), offset, make)

    for step in range(29):
        for begin in (0, 150):
            assert get(begin + 3 * step).has(begin + 3 * step)
    assert sorted(made) == [0, 30, 60, 150, 180, 210], "each piece was made once"
    assert get(300) is get(1 << 40), "nothing follows the last one"
    for offset in range(1000, 3000):
        get(offset)
    assert len(listings._starts[1, 0]) <= 100, "what is forgotten takes no memory"
