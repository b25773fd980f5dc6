"""What was used least recently goes first."""

from cvmfs_graphdriver.client.lru import LeastRecentlyUsed


def test_the_least_recently_used_goes_first() -> None:
    kept: LeastRecentlyUsed[str, int] = LeastRecentlyUsed(2)
    assert kept.put("a", 1) == []
    assert kept.put("b", 2) == []
    assert kept.get("a") == 1
    assert kept.peek("b") == 2, "which is no use"
    assert kept.put("c", 3) == [2]
    assert (kept.get("b"), kept.peek("b"), len(kept)) == (None, None, 2)
    assert list(kept) == [("a", 1), ("c", 3)]


def test_entries_may_weigh_and_the_newest_stays_however_heavy() -> None:
    kept: LeastRecentlyUsed[str, str] = LeastRecentlyUsed(5, len)
    kept.put("a", "xx")
    kept.put("b", "yyy")
    assert kept.put("c", "z") == ["xx"]
    assert kept.put("d", "far too long") == ["yyy", "z"]
    assert list(kept) == [("d", "far too long")]
    assert kept.put("e", "x") == ["far too long"]


def test_a_value_takes_the_place_of_another() -> None:
    kept: LeastRecentlyUsed[str, str] = LeastRecentlyUsed(5, len)
    kept.put("a", "xxxx")
    assert kept.put("a", "y") == []
    assert kept.put("b", "zzzz") == [], "the weight of the first one is forgotten"
    assert kept.pop("a") == "y"
    assert kept.pop("a") is None
    assert kept.clear() == ["zzzz"]
    assert kept.put("c", "xxxxx") == []
    assert len(kept) == 1
