"""Maps of owners."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.planes.filesystem.ownership import UNCHANGED, OwnerMap, load_owner_map


def load(tmp_path: Path, text: str | bytes) -> OwnerMap:
    path = tmp_path / "map"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_owner_map(path)


def test_a_map(tmp_path: Path) -> None:
    ids = load(tmp_path, "# comment\n\n0 1000\n 5\t6  # another\n* 65534\n")
    assert [ids(number) for number in (0, 5, 6, 1000)] == [1000, 6, 65534, 65534]
    plain = load(tmp_path, "7 8\n")
    assert [plain(number) for number in (7, 8)] == [8, 8]
    assert UNCHANGED(42) == 42


@pytest.mark.parametrize("text", ["1", "1 2 3", "a 1", "1 a", "* -1", "1 4294967296", b"\xff 1"])
def test_other_lines_are_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="map"):
        load(tmp_path, text)


def test_a_missing_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_owner_map(tmp_path / "none")
