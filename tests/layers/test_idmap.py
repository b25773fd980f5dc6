"""Numbers of owners inside and outside of a user namespace."""

import pytest

from cvmfs_graphdriver.layers.errors import UnmappedOwnerError
from cvmfs_graphdriver.layers.idmap import IdMap, IdRange, Owners


def test_without_ranges_all_are_the_same() -> None:
    assert (IdMap().outward(7), IdMap().inward(7), Owners().root) == (7, 7, (0, 0))


def test_ranges_are_followed_both_ways() -> None:
    some = IdMap([IdRange(0, 1000, 1), IdRange(1, 100_000, 65_535)])
    for inside, outside in ((0, 1000), (1, 100_000), (65_535, 165_534)):
        assert some.outward(inside) == outside
        assert some.inward(outside) == inside
    assert Owners(some, IdMap([IdRange(0, 5, 1)])).root == (1000, 5)


def test_an_owner_without_an_id_is_reported() -> None:
    some = IdMap([IdRange(0, 1000, 10)])
    with pytest.raises(UnmappedOwnerError, match="owner 10 has no id outside"):
        some.outward(10)
    with pytest.raises(UnmappedOwnerError, match="owner 999 has no id inside"):
        some.inward(999)
