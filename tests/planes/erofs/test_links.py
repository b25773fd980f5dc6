"""Links to cached objects: where they are made, and when they go."""

import os
import time
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.cache.linked import remove_links
from cvmfs_graphdriver.planes.erofs.links import Links, link_directories
from cvmfs_graphdriver.planes.erofs.objectnames import InodeName, StoredObject
from cvmfs_graphdriver.repository.catalog.entry import Compression
from cvmfs_graphdriver.repository.digest import Digest

WANTED = StoredObject(Digest.parse("ab" + "1" * 38), 3, Compression.ZLIB)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """The object in a cache."""
    path = tmp_path / "ab" / ("1" * 38)
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def made(cache: Path, fqrn: str = "a.org") -> list[Path]:
    """The links that are there, in the order in which overlayfs looks."""
    places = [place / fqrn / os.fsdecode(WANTED.path) for place in link_directories(cache)]
    return [place for place in places if place.exists()]


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, path.stat().st_mtime))


def test_links_are_made_in_both_places_once(tmp_path: Path, cached: Path) -> None:
    links = Links(tmp_path, "a.org")
    for _ in range(2):
        links.add(WANTED, str(cached))
    assert [path.stat().st_ino for path in made(tmp_path)] == 2 * [cached.stat().st_ino]
    assert cached.stat().st_nlink == 3
    assert time.time() - cached.stat().st_atime < 5, "it is seen that it was used"


def test_a_link_to_a_file_that_was_evicted_gives_way(tmp_path: Path, cached: Path) -> None:
    links = Links(tmp_path, "a.org")
    links.add(WANTED, str(cached))
    cached.unlink()
    with pytest.raises(FileNotFoundError):
        links.add(WANTED, str(cached))
    cached.write_bytes(b"abc")
    links.add(WANTED, str(cached))
    assert [path.stat().st_ino for path in made(tmp_path)] == 2 * [cached.stat().st_ino]
    assert not [name for path in made(tmp_path) for name in os.listdir(path.parent) if name != path.name]


def test_links_go_with_their_object(tmp_path: Path, cached: Path) -> None:
    Links(tmp_path, "a.org").add(WANTED, str(cached))
    cached.unlink()
    age(made(tmp_path)[0], 5)
    remove_links(tmp_path, ["ab" + "2" * 38])
    assert len(made(tmp_path)) == 2
    remove_links(tmp_path, [WANTED.digest.text])
    assert made(tmp_path) == []


def test_links_of_an_object_that_has_come_back_stay(tmp_path: Path, cached: Path) -> None:
    """Its file was removed by one process, and fetched again by another before the links are removed."""
    links = Links(tmp_path, "a.org")
    links.add(WANTED, str(cached))
    cached.unlink()
    cached.write_bytes(b"abc")
    links.add(WANTED, str(cached))
    age(cached, 5)
    remove_links(tmp_path, [WANTED.digest.text])
    assert len(made(tmp_path)) == 2


def test_links_that_overlayfs_is_about_to_look_up_stay_but_not_those_of_a_damaged_object(
    tmp_path: Path, cached: Path
) -> None:
    Links(tmp_path, "a.org").add(WANTED, str(cached))
    cached.unlink()
    remove_links(tmp_path, [WANTED.digest.text])
    assert len(made(tmp_path)) == 2
    remove_links(tmp_path, [WANTED.digest.text], fresh=True)
    assert made(tmp_path) == []


def test_sweeping(tmp_path: Path, cached: Path) -> None:
    links = Links(tmp_path, "a.org")
    links.add(WANTED, str(cached))
    first, second = made(tmp_path)
    age(first, 100)
    links.sweep()
    assert made(tmp_path) == [first, second]
    age(first, 1000)
    links.sweep()
    assert made(tmp_path) == [second], "the next use passes the trigger"
    cached.unlink()
    os.link(second, first)
    age(second, 0)
    links.sweep()
    assert made(tmp_path) == [first, second], "overlayfs may be on its way to one made just now"
    age(second, 10)
    links.sweep()
    assert made(tmp_path) == []


def test_links_of_an_earlier_boot_go(tmp_path: Path, cached: Path) -> None:
    """Files may have been cut short since; their sizes are looked at when links are made."""
    left = tmp_path / "links/00000000-0000-0000-0000-000000000000/first/a.org/ab/old.3z"
    left.parent.mkdir(parents=True)
    os.link(cached, left)
    Links(tmp_path, "a.org")
    assert not left.exists()
    assert cached.stat().st_nlink == 1


@pytest.mark.parametrize(
    "digest", ["ab" + "1" * 38, "00" + "f" * 38 + "-rmd160", "ff" + "0" * 38 + "-shake128"]
)
@pytest.mark.parametrize("compression", list(Compression))
def test_names_are_understood(digest: str, compression: Compression) -> None:
    wanted = StoredObject(Digest.parse(digest), 1 << 40, compression)
    assert StoredObject.parse(wanted.directory, wanted.name) == wanted
    named = InodeName(2**40, wanted.digest)
    assert InodeName.parse(named.path.partition(b"/")[2]) == named


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"..",
        b"1" * 38,
        b"1" * 38 + b".z",
        b"1" * 37 + b".3z",
        b"1" * 38 + b"-md4.3z",
        b"1" * 38 + b".3q",
    ],
)
def test_other_names_mean_nothing(name: bytes) -> None:
    assert StoredObject.parse(b"ab", name) is None
    assert InodeName.parse(name) is None
