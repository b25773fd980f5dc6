"""What containerd's conformance suite checks, and error codes, over the socket: snapshots of no repository.

The names are those of the suite (containerd, ``core/snapshots/testsuite``), which itself runs in
tests/containerd.
"""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from cvmfs_graphdriver.kernel.overlay import LAYER_LIMIT
from tests.support.snapshotter_process import SnapshotterProcess, code_of, snapshotter

pytestmark = pytest.mark.root

Change = Callable[[Path], object]
ACTIVE, COMMITTED = 2, 3


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnapshotterProcess]:
    with snapshotter(tmp_path_factory.mktemp("snapshotter")) as found:
        yield found


_numbers = itertools.count()


def new_key() -> str:
    return f"testsuite/{next(_numbers)}/../extract {os.getpid()}"


def layer(running: SnapshotterProcess, parent: str, *changes: Change) -> str:
    """Prepare a snapshot, change what it shows, commit it; returns its name."""
    key, name = new_key(), new_key()
    with running.mounted(running.prepare(key, parent)) as target:
        for change in changes:
            change(target)
    running.commit(name, key)
    return name


def seen(running: SnapshotterProcess, parent: str) -> dict[str, str]:
    """The files above a snapshot with their contents, and directories; a view of it is the same."""
    trees = []
    for mounts in (running.prepare(new_key(), parent), running.view(new_key(), parent)):
        with running.mounted(mounts) as target:
            trees.append(tree(target))
    assert trees[0] == trees[1]
    return trees[0]


def tree(target: Path) -> dict[str, str]:
    return {
        str(path.relative_to(target)): "/" if path.is_dir() else path.read_text()
        for path in target.rglob("*")
    }


def write(name: str, text: str) -> Change:
    def change(target: Path) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)

    return change


def remove(name: str) -> Change:
    return lambda target: subprocess.run(["rm", "-r", target / name], check=True)


def test_basic(running: SnapshotterProcess) -> None:
    first = layer(running, "", write("foo", "foo"), write("a/b/c", ""))
    second = layer(running, first, write("bar", "bar"), write("foo", "bar"), remove("a/b"))
    assert seen(running, second) == {"foo": "bar", "bar": "bar", "a": "/"}
    infos = {info.name: (info.parent, info.kind) for info in running.infos()}
    assert (infos[first], infos[second]) == (("", COMMITTED), (first, COMMITTED))
    with code_of("FAILED_PRECONDITION"):
        running.remove(first)


def test_stat_and_transitivity(running: SnapshotterProcess) -> None:
    base = layer(running, "")
    key = new_key()
    running.prepare(key, base, {"name": "value", "empty": ""})
    info = running.stat(key)
    assert (info.name, info.parent, info.kind, dict(info.labels)) == (key, base, ACTIVE, {"name": "value"})
    name = new_key()
    running.commit(name, key, {"other": "label"})
    with code_of("NOT_FOUND"):
        running.stat(key)
    committed = running.stat(name)
    assert (committed.parent, committed.kind, dict(committed.labels)) == (base, COMMITTED, {"other": "label"})
    assert committed.created_at.ToNanoseconds() >= info.created_at.ToNanoseconds() > 0
    assert running.stat(committed.parent).parent == ""


def test_a_key_is_used_once(running: SnapshotterProcess) -> None:
    base, active, view = layer(running, ""), new_key(), new_key()
    running.prepare(active, base)
    running.view(view, base)
    for key in (active, view, base):
        for method in (running.prepare, running.view):
            with code_of("ALREADY_EXISTS"):
                method(key, base)
    with code_of("ALREADY_EXISTS"):
        running.commit(base, active)
    assert running.stat(active).kind == ACTIVE


def test_what_cannot_be_done_is_refused(running: SnapshotterProcess) -> None:
    key = new_key()
    running.view(key)
    for refused, code in (
        (lambda: running.prepare(new_key(), "unknown"), "NOT_FOUND"),
        (lambda: running.prepare(new_key(), key), "INVALID_ARGUMENT"),
        (lambda: running.prepare(""), "INVALID_ARGUMENT"),
        (lambda: running.prepare("k" * 5000), "INVALID_ARGUMENT"),
        (lambda: running.prepare(new_key(), "", {"label": "x" * 4092}), "INVALID_ARGUMENT"),
        (lambda: running.commit(new_key(), key), "FAILED_PRECONDITION"),
        (lambda: running.commit(new_key(), "unknown"), "NOT_FOUND"),
        (lambda: running.mounts("unknown"), "NOT_FOUND"),
        (lambda: running.mounts(layer(running, "")), "FAILED_PRECONDITION"),
        (lambda: running.remove("unknown"), "NOT_FOUND"),
        (lambda: running.call("Usage", key="unknown"), "NOT_FOUND"),
        (lambda: running.update(key, {}, "parent"), "INVALID_ARGUMENT"),
        (lambda: running.infos("name=="), "INVALID_ARGUMENT"),
    ):
        with code_of(code):
            refused()
    running.prepare(new_key(), "", {"label": "x" * 4091})


def test_update(running: SnapshotterProcess) -> None:
    name = layer(running, "")
    assert dict(running.update(name, {"a": "1", "b": "2"}, "labels").labels) == {"a": "1", "b": "2"}
    assert dict(running.update(name, {"a": "3", "c": "4"}, "labels.a").labels) == {"a": "3", "b": "2"}
    assert dict(running.update(name, {"c.d/e": "4"}, "labels.c.d/e").labels) == {
        "a": "3",
        "b": "2",
        "c.d/e": "4",
    }
    assert dict(running.update(name, {}, "labels.b").labels) == {"a": "3", "c.d/e": "4"}
    before = running.stat(name)
    after = running.update(name, {"only": "this"})
    assert dict(after.labels) == dict(running.stat(name).labels) == {"only": "this"}
    assert after.updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    assert after.created_at == before.created_at


def test_walk(running: SnapshotterProcess) -> None:
    names = [new_key() for _ in range(250)]
    for number, name in enumerate(names):
        running.view(name, "", {"walk": str(number % 2)})
    assert {info.name for info in running.infos()} >= set(names)
    assert [info.name for info in running.infos("labels.walk==1,kind==view")] == names[1::2]
    assert [info.name for info in running.infos(f'name=="{names[0]}"', f'name=="{names[3]}"')] == [
        names[0],
        names[3],
    ]
    for name in names:
        running.remove(name)
    assert running.infos("labels.walk") == []


def test_files_of_lower_layers_change_and_move(running: SnapshotterProcess) -> None:
    base = layer(running, "", write("etc/profile", "1"), write("lib/old/deep", "x"), write("moved", "m"))
    top = layer(
        running,
        layer(running, base, write("etc/profile", "2"), remove("lib/old"), write("lib/old/new", "y")),
        lambda target: (target / "moved").rename(target / "etc/moved"),
    )
    expected = {
        "etc": "/",
        "etc/profile": "2",
        "etc/moved": "m",
        "lib": "/",
        "lib/old": "/",
        "lib/old/new": "y",
    }
    assert seen(running, top) == expected
    with running.mounted(running.prepare(new_key(), base)) as target, pytest.raises(OSError, match="link"):
        (target / "lib").rename(target / "lib2")  # as with overlayfs: a rename would refer to the lower layer


def test_owners_and_modes_stay(running: SnapshotterProcess) -> None:
    def own(target: Path) -> None:
        for name, mode in (("dir", 0o700), ("dir/below", 0o1777), ("file", 0o4755)):
            (target / name).mkdir() if name != "file" else (target / name).write_text("")
            os.chown(target / name, 1, 2)
            (target / name).chmod(mode)

    top = layer(running, layer(running, "", own), lambda target: os.chown(target / "file", 3, 4))
    with running.mounted(running.prepare(new_key(), top)) as target:
        found = {name: (target / name).stat() for name in (".", "dir", "dir/below", "file")}
    assert {name: (each.st_mode & 0o7777, each.st_uid, each.st_gid) for name, each in found.items()} == {
        ".": (0o755, 0, 0),
        "dir": (0o700, 1, 2),
        "dir/below": (0o1777, 1, 2),
        "file": (0o755, 3, 4),  # chown(2) drops the setuid bit
    }


def test_a_new_layer_belongs_to_who_owned_the_one_below(running: SnapshotterProcess) -> None:
    base = layer(running, "", lambda target: os.chown(target, 5, 6))
    with running.mounted(running.prepare(new_key(), base)) as target:
        assert (target.stat().st_uid, target.stat().st_gid) == (5, 6)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_view_is_read_only(running: SnapshotterProcess, depth: int) -> None:
    parent = ""
    for number in range(depth):
        parent = layer(running, parent, write(str(number), ""))
    with running.mounted(running.view(new_key(), parent)) as target:
        with pytest.raises(OSError, match="Read-only"):
            (target / "new").write_text("")
        assert len(os.listdir(target)) == depth


def test_an_intermediate_snapshot_stays(running: SnapshotterProcess) -> None:
    base = layer(running, "", write("base", ""))
    middle = layer(running, base)
    top = new_key()
    running.prepare(top, middle)
    for name in (base, middle):
        with code_of("FAILED_PRECONDITION"):
            running.remove(name)
    for name in (top, middle, base):
        running.remove(name)


def test_128_layers_and_as_many_as_the_kernel_takes(running: SnapshotterProcess) -> None:
    parent = ""
    for number in range(LAYER_LIMIT - 5):
        key = new_key()
        (mount,) = running.prepare(key, parent)
        if number in (0, 127, LAYER_LIMIT - 6):
            with running.mounted([mount]) as target:
                assert len(os.listdir(target)) == number
        upper = mount.source if mount.type == "bind" else mount.options[-2].removeprefix("upperdir=")
        (Path(upper) / str(number)).write_text("")
        parent = new_key()
        running.commit(parent, key)
    assert len(seen(running, parent)) == LAYER_LIMIT - 5


def test_usage(running: SnapshotterProcess) -> None:
    key, name = new_key(), new_key()
    with running.mounted(running.prepare(key)) as target:
        (target / "big").write_bytes(b"x" * 1_000_000)
        (target / "again").hardlink_to(target / "big")
    running.commit(name, key)
    usage = running.call("Usage", key=name)
    assert 1_000_000 <= usage.size < 1_100_000
    assert usage.inodes == 2
    above = new_key()
    running.prepare(above, name)
    assert running.call("Usage", key=above).inodes == 1


# What the suite does not check: user namespaces, and processes that die.


MAPPED = {
    "containerd.io/snapshot/uidmapping": "0:100000:65536",
    "containerd.io/snapshot/gidmapping": "0:7:1,1:9:5",
}


def test_a_mapped_root_owns_its_snapshot_and_containerd_maps_the_rest(tmp_path: Path) -> None:
    with snapshotter(tmp_path, more="remap_ids = true") as running:
        (bound,) = running.prepare("base", "", MAPPED)
        assert bound.options == ("uidmap=0:100000:65536", "gidmap=0:7:1,1:9:5", "rw", "rbind")
        running.commit("base", "base")
        parent = "base"
        for number in range(70):
            running.prepare(f"a{number}", parent)
            parent = f"c{number}"
            running.commit(parent, f"a{number}")
        (merged,) = running.prepare("container", parent, MAPPED)
        assert {"uidmap=0:100000:65536", "gidmap=0:7:1,1:9:5"} <= set(merged.options)
        # Containerd maps one directory that has them all, and looks for each below it.
        assert {Path(each).parent.parent for each in merged.lower} == {running.state / "snapshots"}
        (upper,) = (each for each in merged.options if each.startswith("upperdir="))
        status = os.stat(upper.removeprefix("upperdir="))
        assert (status.st_uid, status.st_gid) == (100_000, 7)
        for bad in ("", "0:1", "1:2:3", "0:x:1", "0:1:1,"):
            with code_of("INVALID_ARGUMENT"):
                running.prepare("bad", "", {**MAPPED, "containerd.io/snapshot/uidmapping": bad})
        with code_of("INVALID_ARGUMENT"):
            running.prepare("bad", "", {"containerd.io/snapshot/uidmapping": "0:1:1"})


def rows(running: SnapshotterProcess) -> set[str]:
    with sqlite3.connect(running.state / "metadata.db") as database:
        return {str(number) for (number,) in database.execute("SELECT id FROM snapshots")}


def test_a_killed_snapshotter_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    answered: list[str] = []

    def work(running: SnapshotterProcess, number: int) -> None:
        try:
            for step in itertools.count():
                name = f"{number}/{step}"
                running.prepare(f"{name} active")
                running.commit(name, f"{name} active")
                answered.append(name)
                if step % 3 == 0:
                    running.prepare(f"{name} gone", name)
                    running.remove(f"{name} gone")
                    running.cleanup()
        except (grpc.RpcError, ValueError):
            return

    with snapshotter(tmp_path) as running:
        for attempt in range(int(os.environ.get("KILLS", "3"))):
            threads = [
                threading.Thread(target=work, args=(running, 10 * attempt + number)) for number in range(3)
            ]
            for thread in threads:
                thread.start()
            enough = len(answered) + 10
            while len(answered) < enough:
                threads[0].join(0.01)
            running.stop(signal.SIGKILL)
            for thread in threads:
                thread.join()
            running.start()
            assert set(answered) <= {info.name for info in running.infos("kind==committed")}
            assert rows(running) == set(running.directories())


def test_records_without_a_directory_and_directories_without_a_record_go(tmp_path: Path) -> None:
    with snapshotter(tmp_path) as running:
        base = layer(running, "", write("file", "text"))
        running.prepare("active", base)
        running.stop()
        (lost,) = (
            name
            for name in running.directories()
            if (running.state / "snapshots" / name / "work").exists()
            and not (running.state / "snapshots" / name / "fs/file").exists()
        )
        subprocess.run(["rm", "-r", running.state / "snapshots" / lost], check=True)
        for name in ("77", ".new-78", ".gone-1"):
            (running.state / "snapshots" / name / "fs").mkdir(parents=True)
        running.start()
        assert [info.name for info in running.infos()] == [base]
        assert rows(running) == set(running.directories())


def test_only_one_process_uses_a_state_directory(tmp_path: Path) -> None:
    with snapshotter(tmp_path) as running:
        program = Path(sys.executable).with_name("cvmfs-graphdriver")
        done = subprocess.run(
            [program, "snapshotter", "serve", "--config", running.file], capture_output=True, check=False
        )
        assert done.returncode == 90
        assert b"another snapshotter is using" in done.stderr


def test_cleanup_frees_and_spares_what_is_being_prepared(tmp_path: Path) -> None:
    with snapshotter(tmp_path) as running:
        stop = threading.Event()

        def clean() -> None:
            while not stop.is_set():
                running.cleanup()

        cleaning = threading.Thread(target=clean)
        cleaning.start()
        try:
            for number in range(40):
                with running.mounted(running.prepare(f"{number}")) as target:
                    (target / "file").write_text("text")
                    assert (target / "file").read_text() == "text"
                running.remove(f"{number}")
        finally:
            stop.set()
            cleaning.join()
        running.cleanup()
        assert running.directories() == []
