"""What a layer changes, against Docker's own rules on real overlay mounts."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfs_graphdriver.layers.changes import Change, ChangeKind, changes, size_of
from cvmfs_graphdriver.layers.merged import Merged
from tests.support.trees import directories, overlay

pytestmark = pytest.mark.root


def merged(*layers: Path) -> Merged:
    return Merged(os.fsencode(layer) for layer in layers)


def naive(new: Path, old: Path | None, path: str = "") -> set[Change]:
    """Docker's comparison of two mounted trees, word for word."""
    found: set[Change] = set()
    names = set(os.listdir(new)) | (set(os.listdir(old)) if old else set())
    for name in names:
        now, before = new / name, old / name if old else None
        where = f"{path}/{name}"
        if not os.path.lexists(now):
            found.add(Change(where.encode(), ChangeKind.DELETED))
            continue
        is_directory = stat.S_ISDIR(os.lstat(now).st_mode)
        if before is None or not os.path.lexists(before):
            found.add(Change(where.encode(), ChangeKind.ADDED))
            found |= naive(now, None, where) if is_directory else set()
            continue
        was_directory = stat.S_ISDIR(os.lstat(before).st_mode)
        inside = naive(now, before if was_directory else None, where) if is_directory else set()
        if inside or differ(os.lstat(now), os.lstat(before)):
            found.add(Change(where.encode(), ChangeKind.MODIFIED))
        found |= inside
    return found


def differ(new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns)


NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "a/c", "b/a", "b/b", "a/a/a", "a/a/b", "b/a/a"])


def write(root: Path, name: str) -> None:
    if not (root / name).is_dir():
        (root / name).write_text(name * 3)


def make_directory(root: Path, name: str) -> None:
    (root / name).mkdir()


def remove(root: Path, name: str) -> None:
    if (root / name).is_dir():
        shutil.rmtree(root / name)
    else:
        (root / name).unlink()


def replace(root: Path, name: str) -> None:
    """A directory that is made anew is opaque."""
    remove(root, name)
    (root / name).mkdir()


def change_mode(root: Path, name: str) -> None:
    (root / name).chmod(0o700)


def touch(root: Path, name: str) -> None:
    os.utime(root / name)


ACTIONS: list[Callable[[Path, str], None]] = [write, make_directory, remove, replace, change_mode, touch]
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), NAMES), max_size=8)


def act(root: Path, steps: list[tuple[Callable[[Path, str], None], str]]) -> None:
    for action, name in steps:
        try:
            action(root, name)
        except OSError:
            continue


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.lists(STEPS, min_size=2, max_size=4))
def test_they_are_what_docker_finds_in_mounted_trees(
    tmp_path_factory: pytest.TempPathFactory,
    layers: list[list[tuple[Callable[[Path, str], None], str]]],
) -> None:
    root = tmp_path_factory.mktemp("case")
    stack: list[Path] = []
    for number, steps in enumerate(layers):
        (layer,) = directories(root, str(number))
        if stack:
            with overlay(root, stack, layer) as mounted:
                act(mounted, steps)
        else:
            act(layer, steps)
        stack.insert(0, layer)
    new, old, empty = directories(root, "new", "old", "empty")
    with overlay(new, [*stack, empty]) as now, overlay(old, [*stack[1:], empty]) as before:
        expected = naive(now, before)
        found = changes(merged(*stack), merged(*stack[1:]))
    assert set(found) == expected
    assert len(found) == len(expected)
    shutil.rmtree(root)


def test_a_layer_without_parent_is_all_new(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    (layer / "d").mkdir()
    (layer / "d/f").touch()
    assert changes(merged(layer), Merged()) == [
        Change(b"/d", ChangeKind.ADDED),
        Change(b"/d/f", ChangeKind.ADDED),
    ]


def test_times_of_whole_seconds_are_those_of_archives(tmp_path: Path) -> None:
    base, top = directories(tmp_path, "base", "top")
    for layer, time in ((base, 1_600_000_000_000_000_000), (top, 1_600_000_000_123_456_789)):
        (layer / "f").touch()
        os.utime(layer / "f", ns=(time, time))
    assert changes(merged(top, base), merged(base)) == []
    os.utime(top / "f", ns=(0, 1_600_000_001_000_000_000))
    assert changes(merged(top, base), merged(base)) == [Change(b"/f", ChangeKind.MODIFIED)]


def test_a_new_capability_is_a_change(tmp_path: Path) -> None:
    base, top = directories(tmp_path, "base", "top")
    for layer in (base, top):
        (layer / "ping").touch()
        os.utime(layer / "ping", (0, 0))
    assert changes(merged(top, base), merged(base)) == []
    os.setxattr(
        top / "ping", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    assert changes(merged(top, base), merged(base)) == [Change(b"/ping", ChangeKind.MODIFIED)]


def test_the_size_is_that_of_files_each_counted_once(tmp_path: Path) -> None:
    (layer,) = directories(tmp_path, "layer")
    (layer / "d").mkdir()
    (layer / "d/one").write_bytes(bytes(1000))
    os.link(layer / "d/one", layer / "two")
    (layer / "link").symlink_to("target")
    os.mknod(layer / "gone", stat.S_IFCHR, 0)
    assert size_of(layer) == 1006
