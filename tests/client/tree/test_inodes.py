"""The table of inode numbers: ranges that stay, whatever happens to the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_graphdriver.client.errors import CacheError, StaleInodeError
from cvmfs_graphdriver.client.tree.inodes import ROOT_INODE, InodeTable, Range
from cvmfs_graphdriver.repository.digest import Algorithm, Digest

ONE, TWO = Digest.of(b"1"), Digest.of(b"2", Algorithm.RMD160)


def test_ranges_follow_one_another_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "inodes"
    table = InodeTable(path)
    assert table.greatest == ROOT_INODE
    first = table.range_of(b"", ONE, 10)
    second = table.range_of(b"/a\xff b\n", TWO, 5)
    assert first == Range(ROOT_INODE, 10, ONE, b"")
    assert second == Range(ROOT_INODE + 10, 5, TWO, b"/a\xff b\n")
    assert table.range_of(b"", ONE, 10) is first
    other_place = table.range_of(b"/x", ONE, 10)
    assert other_place.offset == ROOT_INODE + 15
    again = InodeTable(path)
    assert again.range_of(b"/a\xff b\n", TWO, 5) == second
    assert [again.find(inode) for inode in (2, 11, 12, 16, 17, 26)] == [
        *(first, first, second, second, other_place, other_place)
    ]
    for inode in (0, 1, 27, 10**18):
        with pytest.raises(StaleInodeError):
            again.find(inode)
    assert again.greatest == 26


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "inodes"
    InodeTable(path).range_of(b"", ONE, 10)
    whole = path.read_bytes()
    for cut in range(1, 30):
        path.write_bytes(whole + b"11 5 " + ONE.text.encode()[:cut])
        table = InodeTable(path)
        assert table.range_of(b"/n", TWO, 7).offset == 11
        assert path.read_bytes() == whole + f"11 7 {TWO} 2f6e\n".encode()
        assert InodeTable(path).find(18).digest == TWO


@pytest.mark.parametrize("damage", [b"nonsense\n", b"1 2\n", b"\xff\xff\n", b"1 2 zz -\n", b"1 2 x 3 4 5\n"])
def test_damage_is_told(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "inodes").write_bytes(damage)
    with pytest.raises(CacheError, match=r"inodes.*remove it"):
        InodeTable(tmp_path / "inodes")


def test_several_processes_never_give_out_the_same_number(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cvmfs_graphdriver.client.tree.inodes import InodeTable
from cvmfs_graphdriver.repository.digest import Digest
table = InodeTable(Path(sys.argv[1]))
for number in range(100):
    table.range_of(b"/x", Digest.of(str(number % 70 + int(sys.argv[2])).encode()), 10)
"""
    path = tmp_path / "inodes"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(10 * number)]) for number in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    offsets = [int(line.split()[0]) for line in path.read_text().splitlines()]
    assert offsets == [ROOT_INODE + 10 * number for number in range(100)]


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    table = InodeTable(tmp_path / "absent" / "inodes")
    with pytest.raises(CacheError, match="No such file"):
        table.range_of(b"", ONE, 1)
