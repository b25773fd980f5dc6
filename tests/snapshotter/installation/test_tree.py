"""Versions of the program on a node: whole or not there, and kept while processes use them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfs_graphdriver.snapshotter.errors import InstallationError
from cvmfs_graphdriver.snapshotter.installation import tree


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where versions are, in the image and, as they share a root here, on the host."""
    found = tmp_path / "opt/cvmfs-snapshotter"
    monkeypatch.setattr(tree, "_HOME", found)
    monkeypatch.setattr(tree, "_CURRENT", found / "current")
    return found


def version(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version whose interpreter is another program, and which runs now."""
    (home / name / "usr/bin").mkdir(parents=True)
    program = shutil.which("sleep")
    assert program is not None
    shutil.copy(Path(program).resolve(), home / name / "usr/bin/python3.11")
    (home / name / "usr/bin/python3").symlink_to("python3.11")
    monkeypatch.setattr(sys, "prefix", str(home / name / "usr"))
    return home / name


def on_host(root: Path, place: Path) -> Path:
    return root / place.relative_to("/")


def test_a_version_is_copied_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = version(home, "1-a", monkeypatch)
    host = tmp_path / "host"
    copy = on_host(host, one)
    left = copy.with_name(".new-1-a") / "usr"  # of an installer that was killed
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")
    assert tree.copy_to(host) == one
    assert sorted(path.name for path in copy.parent.iterdir()) == ["1-a"]
    assert (copy / "usr/bin/python3.11").read_bytes() == (one / "usr/bin/python3.11").read_bytes()
    assert (copy / "usr/bin/python3").readlink() == Path("python3.11")
    assert not (copy / "usr/half").exists()
    (copy / "mark").touch()
    tree.copy_to(host)
    assert (copy / "mark").exists()


@pytest.mark.parametrize("absolute", [False, True])
def test_links_lead_where_they_lead_on_the_host(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, *, absolute: bool
) -> None:
    one = version(home, "1-a", monkeypatch)
    host = tmp_path / "host"
    opt = on_host(host, home.parent)
    opt.parent.mkdir(parents=True)
    (host / "var/opt").mkdir(parents=True)
    up = "/" if absolute else "../" * len(opt.parent.relative_to(host).parts)
    opt.symlink_to(f"{up}var/opt")
    tree.copy_to(host)
    assert (host / "var/opt/cvmfs-snapshotter" / one.name / "usr/bin/python3.11").exists()


def test_a_program_from_elsewhere_is_not_copied(tmp_path: Path, home: Path) -> None:
    with pytest.raises(InstallationError, match="make snapshotter-image"):
        tree.copy_to(tmp_path)
    assert not home.exists()


def test_versions_that_processes_use_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (version(home, name, monkeypatch) for name in ("1-a", "2-b", "3-c"))
    assert tree.make_current(three)
    assert not tree.make_current(three)
    process = subprocess.Popen([one / "usr/bin/python3.11", "60"])
    try:
        assert tree.remove_unused() == [one]
        assert (one.exists(), two.exists(), three.exists()) == (True, False, True)
        assert tree.remove_all() == [one]
        assert sorted(path.name for path in home.iterdir()) == ["1-a"]
    finally:
        process.kill()
        process.wait()
    assert tree.remove_all() == []
    assert not home.exists()
