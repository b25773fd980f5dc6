"""The same layers by both planes: no difference; and what happens to who reads when things go wrong."""

import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at, mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay
from cvmfs_graphdriver.planes import choice
from cvmfs_graphdriver.planes.choice import Choice, choose_plane, obstacle
from cvmfs_graphdriver.planes.erofs.links import link_directories
from cvmfs_graphdriver.planes.erofs_plane import ErofsPlane
from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath, Plane
from cvmfs_graphdriver.publisher import server as publisher_server
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from tests.support.entries import Item, directory, file
from tests.support.mounts import end, pids_serving, wait_until
from tests.support.published import FQRN, Published, published

pytestmark = pytest.mark.root

BASE, MIDDLE, TOP, ALONE = (LayerPath(FQRN, b"/layers/" + name) for name in (b"aa", b"bb", b"cc", b"dd"))
BIG = random.Random(7).randbytes(20 << 20)


def node(path: str, mode: int, **details: Any) -> Item:
    return TreeEntry(path.encode(), mode, **details), None


def link(path: str, target: str) -> Item:
    return TreeEntry(path.encode(), stat.S_IFREG | 0o644, hardlink=target.encode()), None


LAYERS: dict[bytes, Sequence[Item]] = {
    BASE.path: [
        directory("", 0o711, uid=3, gid=4, mtime=5, mtime_ns=6),
        directory("/etc", 0o750, gid=12, mtime=-1),
        file("/etc/motd", b"from the base"),
        file("/etc/passwd", b"base", mtime=1_700_000_000, mtime_ns=123_456_789),
        directory("/opaque"),
        file("/opaque/old"),
        directory("/again"),
        file("/again/old"),
        file("/gone", b"x"),
        directory("/goes"),
        file("/goes/with/it", b"deep"),
        file("/.wh.", b"says nothing"),
        file("/.wh..wh.plnk", b"says nothing"),
        file("/linked", b"three names", xattrs={b"user.comment": b"one"}),
        directory("/links"),
        link("/links/two", "/linked"),
        link("/three", "/linked"),
        file("/big", BIG, 0o755),
        node("/link", stat.S_IFLNK | 0o777, symlink=b"etc/motd"),
        node("/long", stat.S_IFLNK | 0o777, symlink=b"../" * 900 + b"x"),
        node("/fifo", stat.S_IFIFO | 0o620, uid=1),
        node("/block", stat.S_IFBLK | 0o660, rdev=os.makedev(8, 300)),
        file(b"/\xff\xfe not utf-8 \n", b"odd"),
        directory("/many"),
        *(file(f"/many/{'n' * 100}{number}", b"%d" % (number % 7)) for number in range(500)),
    ],
    MIDDLE.path: [
        file("/etc/.wh.motd"),
        file("/etc/passwd", b"middle", 0o4755),
        directory("/opaque"),
        file("/opaque/.wh..wh..opq"),
        file("/opaque/new"),
        file("/.wh.again"),
        directory("/again", 0o700),
        file("/again/new"),
        file("/.wh.gone"),
        file("/.wh.goes"),
        file("/.wh.never-was"),
        file("/.wh.three"),
        file("/own", b"", xattrs={b"trusted.overlay.opaque": b"mine", b"user.a": b"b"}),
        file(
            "/capable",
            b"#!",
            0o755,
            xattrs={b"security.capability": bytes.fromhex("0100000200040000") + bytes(12)},
        ),
        node("/device", stat.S_IFCHR | 0o600, rdev=os.makedev(5, 1)),
    ],
    TOP.path: [
        directory("", 0o1777, mtime=77),
        file("/etc/motd", b"from the top"),
        file("/goes", b"now a file"),
        file("/links/two", b"another file now"),
    ],
    ALONE.path: [file("/.wh..wh..opq"), file("/only", b"this")],
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    with published(tmp_path_factory.mktemp("repository")) as repository:
        repository.publish(LAYERS)
        yield repository


@dataclass
class Home:
    """A driver's home, with the plane that was chosen for it."""

    path: Path
    etc: Path
    overrides: dict[str, str]
    plane: Plane

    @property
    def cache(self) -> Path:
        return load_settings(FQRN, self.etc, self.overrides).cache.directory

    @property
    def mount(self) -> Path:
        return self.path / "cvmfs" / FQRN

    def again(self) -> Plane:
        """As a process that was started anew."""
        self.plane = choose_plane(Choice.EROFS, self.path, self.etc, self.overrides)
        return self.plane


@contextmanager
def driver_home(path: Path, etc: Path, **overrides: str) -> Iterator[Home]:
    path.mkdir(exist_ok=True)
    settings = {"CVMFS_CACHE_BASE": str(path / "cache"), "CVMFS_SHARED_CACHE": "yes", **overrides}
    try:
        yield Home(path, etc, settings, choose_plane(Choice.EROFS, path, etc, settings))
    finally:
        for mount in reversed(mounts_below(path)):
            umount(mount.mount_point, UmountFlag.DETACH)
        for server in (path / "cvmfs").glob("[a-z]*"):
            end(server)


@pytest.fixture
def home(stored: Published, tmp_path: Path) -> Iterator[Home]:
    with driver_home(tmp_path / "home", stored.etc, CVMFS_QUOTA_LIMIT="4000") as made:
        yield made


@contextmanager
def stacked(plane: Plane, layers: list[LayerPath], place: Path, *, writable: bool = False) -> Iterator[Path]:
    """The layers merged below ``place``."""
    place.mkdir()
    merged = place / "merged"
    merged.mkdir()
    upper, work = (place / "upper", place / "work") if writable else (None, None)
    if upper and work:
        upper.mkdir()
        work.mkdir()
    with plane.lower(layers) as lower:
        mount_overlay(lower.layers, merged, upper=upper, work=work, data=lower.data, options=lower.options)
    try:
        yield merged
    finally:
        while mount_at(merged):
            umount(merged, UmountFlag.DETACH)


def seen(root: Path) -> dict[bytes, dict[str, Any]]:
    """Everything that can be seen of a tree; a directory's size and links are the file system's own."""
    found: dict[bytes, dict[str, Any]] = {}
    names: dict[int, bytes] = {}
    pending = [os.fsencode(root)]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        shown = found[path[len(os.fsencode(root)) :]] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "mtime": status.st_mtime_ns,
            "xattrs": {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in sorted(os.listxattr(path, follow_symlinks=False))
            },
        }
        if stat.S_ISDIR(status.st_mode):
            pending += sorted(path + b"/" + name for name in os.listdir(path))
            continue
        shown |= {"size": status.st_size, "links": status.st_nlink, "device": status.st_rdev}
        shown["same as"] = names.setdefault(status.st_ino, path)[len(os.fsencode(root)) :]
        if stat.S_ISLNK(status.st_mode):
            shown["target"] = os.readlink(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as content:
                shown["sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


@pytest.mark.parametrize(
    "layers",
    [[BASE], [MIDDLE, BASE], [TOP, MIDDLE, BASE], [TOP, ALONE, BASE], [MIDDLE, TOP, BASE]],
    ids=["one", "two", "three", "opaque root", "other order"],
)
def test_both_planes_show_the_same(home: Home, tmp_path: Path, layers: list[LayerPath]) -> None:
    assert isinstance(home.plane, ErofsPlane)
    fuse = FusePlane(home.path / "cvmfs", home.etc, home.overrides)
    with (
        stacked(home.plane, layers, tmp_path / "by erofs") as by_erofs,
        stacked(fuse, layers, tmp_path / "by fuse") as by_fuse,
    ):
        kinds = {mount.filesystem for mount in mounts_below(tmp_path / "by erofs")}
        assert kinds == {b"overlay"}, "nothing but the merged tree is attached"
        truth, found = seen(by_fuse), seen(by_erofs)
        assert found.keys() == truth.keys()
        assert {path: found[path] for path in truth if found[path] != truth[path]} == {}
    if layers == [TOP, MIDDLE, BASE]:
        assert truth[b"/etc/motd"]["size"] == len(b"from the top")
        assert truth[b"/linked"]["links"] == 3
        assert truth[b"/own"]["xattrs"]["trusted.overlay.opaque"] == b"mine"
        assert b"/three" not in truth


def test_an_open_file_costs_no_message(home: Home, tmp_path: Path) -> None:
    """Bytes come from the cached file itself: also when nobody serves the repository any more."""
    with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "stack") as merged:
        before = (merged / "goes").read_bytes(), (merged / "etc/passwd").read_bytes()
        for pid in pids_serving(home.mount):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pids_serving(home.mount))
        assert ((merged / "goes").read_bytes(), (merged / "etc/passwd").read_bytes()) == before
        assert len(os.listdir(merged / "many")) == 500
        assert os.lstat(merged / "links/two").st_size == len(b"another file now")
        with pytest.raises(OSError, match=r"\[Errno (5|107|103)\]") as refused:
            (merged / "links/two").read_bytes()
        assert refused.value.errno != errno.ENOENT
        # A chain that is mounted now has its repository mounted anew, and the file heals there.
        with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "later") as later:
            assert (later / "links/two").read_bytes() == b"another file now"


def test_a_killed_server_is_a_pause(home: Home, tmp_path: Path) -> None:
    with stacked(home.plane, [BASE], tmp_path / "stack") as merged:
        names = sorted(os.listdir(merged / "many"))
        for round_, name in enumerate(names[:30]):
            if round_ % 10 == 0:
                wait_until(lambda: len(pids_serving(home.mount)) == 2)
                keeper, server = pids_serving(home.mount)
                os.kill(server, signal.SIGKILL)
            assert (merged / "many" / name).read_bytes() == b"%d" % (int(name.strip("n")) % 7)
        with (merged / "big").open("rb") as big:
            assert big.read(1 << 20) == BIG[: 1 << 20]
            os.kill(pids_serving(home.mount)[1], signal.SIGKILL)
            assert big.read() == BIG[1 << 20 :]
        assert pids_serving(home.mount)[0] == keeper


def test_what_is_written_over_it(home: Home, tmp_path: Path) -> None:
    """Copying up takes content and attributes along, and no trace of ours."""
    with stacked(home.plane, [MIDDLE, BASE], tmp_path / "stack", writable=True) as merged:
        upper = tmp_path / "stack/upper"
        (merged / "own").chmod(0o600)
        (merged / "big").chmod(0o700)
        with (merged / "goes").open("xb") as new:
            new.write(b"new")
        (merged / "etc/passwd").unlink()
        assert (upper / "big").read_bytes() == BIG
        for path in (upper / "own", upper / "big"):
            assert (
                sorted(name for name in os.listxattr(path) if "metacopy" in name or "redirect" in name) == []
            )
        assert stat.S_ISCHR(os.lstat(upper / "etc/passwd").st_mode)
        assert (merged / "goes").read_bytes() == b"new"


def object_of(stored: Published, content: bytes) -> Path:
    """Where the repository's storage has a small file's object."""
    for path in stored.repository.storage.directory.glob("data/*/*"):  # type: ignore[attr-defined]
        if stored_bytes(path) == content:
            return Path(path)
    raise AssertionError("no such object")


def stored_bytes(path: Path) -> bytes | None:
    try:
        return zlib.decompress(path.read_bytes())
    except zlib.error:
        return None


@pytest.mark.parametrize("damage", ["flip", "truncate", "vanish"])
def test_a_damaged_object_is_an_error_and_heals(
    home: Home, stored: Published, tmp_path: Path, damage: str
) -> None:
    place = object_of(stored, b"now a file")
    good = place.read_bytes()
    damaged = {"flip": good[:-3] + bytes([good[-3] ^ 1]) + good[-2:], "truncate": good[:-4], "vanish": None}
    place.unlink()
    if damaged[damage] is not None:
        place.write_bytes(damaged[damage] or b"")
    try:
        with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "stack") as merged:
            for _ in range(2):
                with pytest.raises(OSError, match="Input/output error"):
                    (merged / "goes").read_bytes()
            place.unlink(missing_ok=True)
            place.write_bytes(good)
            assert (merged / "goes").read_bytes() == b"now a file"
    finally:
        place.write_bytes(good)


def test_eviction_of_files_in_use(home: Home, tmp_path: Path) -> None:
    """Who has opened a file goes on; its bytes leave the disk when nobody needs them; others fetch again."""
    with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "stack") as merged:
        assert (merged / "goes").read_bytes() == b"now a file"
        [cached] = [path for path in home.cache.glob("??/*") if path.read_bytes() == b"now a file"]
        first, second = (place / FQRN for place in link_directories(home.cache))
        [one], [two] = (
            list(place.glob(f"{cached.parent.name}/{cached.name}.*")) for place in (first, second)
        )
        assert one.stat().st_ino == two.stat().st_ino == cached.stat().st_ino
        for path in (cached, one, two):
            path.unlink()
        assert (merged / "goes").read_bytes() == b"now a file"
        with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "another") as another:
            assert (another / "goes").read_bytes() == b"now a file"
        assert cached.exists()


def test_a_cache_that_is_too_small(stored: Published, tmp_path: Path) -> None:
    """The quota is kept although there are links: what was evicted does not stay on the disk."""
    with (
        driver_home(tmp_path / "home", stored.etc, CVMFS_QUOTA_LIMIT="16") as home,
        stacked(home.plane, [BASE], tmp_path / "stack") as merged,
    ):
        first, second = (place / FQRN for place in link_directories(home.cache))
        for name in sorted(os.listdir(merged / "many"))[:40]:
            (merged / "many" / name).read_bytes()
        old = time.time() - 1000
        for path in [*first.glob("*/*"), *second.glob("*/*")]:
            os.utime(path, (old, path.stat().st_mtime))
        assert (merged / "big").read_bytes() == BIG
        wait_until(lambda: sum(path.stat().st_size for path in home.cache.glob("??/*")) <= 16 << 20)
        kept = {path.name for path in home.cache.glob("??/*")}
        linked = {path.name.partition(".")[0] for path in [*first.glob("*/*"), *second.glob("*/*")]}
        assert linked <= kept


def test_who_waits_can_be_killed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = threading.Event(), threading.Event()
    open_regular = publisher_server._open_regular

    def hesitate(directory: int, name: str) -> int:
        asked.set()
        answer.wait(20)
        return open_regular(directory, name)

    with stacked(home.plane, [TOP, MIDDLE, BASE], tmp_path / "stack") as merged:
        serving = pids_serving(home.mount)
        monkeypatch.setattr(publisher_server, "_open_regular", hesitate)
        script = "import sys; open(sys.argv[1]).read()"
        with subprocess.Popen([sys.executable, "-c", script, merged / "goes"]) as reader:
            try:
                assert asked.wait(10)
                with pytest.raises(subprocess.TimeoutExpired):
                    reader.wait(0.3)
                reader.send_signal(signal.SIGWINCH)
                with pytest.raises(subprocess.TimeoutExpired):
                    reader.wait(0.3)
                reader.kill()
                assert reader.wait(5) == -signal.SIGKILL
                assert not answer.is_set()
            finally:
                answer.set()
        assert pids_serving(home.mount) == serving
        assert (merged / "goes").read_bytes() == b"now a file"


def test_a_process_that_starts_anew(home: Home, tmp_path: Path) -> None:
    with stacked(home.plane, [MIDDLE, BASE], tmp_path / "stack") as merged:
        serving = pids_serving(home.mount)
        [image] = (home.path / "cvmfs/.images").glob("*.erofs")
        made = image.stat()
        (home.path / "cvmfs/.images/.new-left").write_bytes(b"half")
        with stacked(home.again(), [MIDDLE, BASE], tmp_path / "another") as another:
            assert seen(another) == seen(merged)
        assert pids_serving(home.mount) == serving
        assert image.stat().st_ino == made.st_ino
        assert [path.name for path in (home.path / "cvmfs/.images").iterdir()] == [image.name]


def test_what_was_foreseen_is_not_made_again(home: Home, tmp_path: Path) -> None:
    home.plane.foresee([MIDDLE, BASE])
    [image] = (home.path / "cvmfs/.images").glob("*.erofs")
    made = image.stat()
    with stacked(home.plane, [MIDDLE, BASE], tmp_path / "stack") as merged:
        assert (merged / "etc/passwd").read_bytes() == b"middle"
    [image] = (home.path / "cvmfs/.images").glob("*.erofs")
    assert (image.stat().st_ino, image.stat().st_mtime_ns > made.st_mtime_ns) == (made.st_ino, True)


def test_a_repository_that_was_mounted_for_the_other_plane(home: Home, tmp_path: Path) -> None:
    """What was made of it goes on; a new chain has it mounted with a trigger."""
    fuse = FusePlane(home.path / "cvmfs", home.etc, home.overrides)
    with stacked(fuse, [MIDDLE, BASE], tmp_path / "by fuse") as by_fuse:
        with home.plane.lower([MIDDLE, BASE]) as lower:
            assert lower.data
        with stacked(home.plane, [MIDDLE, BASE], tmp_path / "by erofs") as by_erofs:
            assert seen(by_erofs) == seen(by_fuse)


def test_a_damaged_image_is_made_anew(home: Home, tmp_path: Path) -> None:
    with stacked(home.plane, [MIDDLE, BASE], tmp_path / "stack") as merged:
        truth = seen(merged)
    [image] = (home.path / "cvmfs/.images").glob("*.erofs")
    content = bytearray(image.read_bytes())
    for number, damaged in enumerate([content[:-1], b"", bytes(len(content)), _flipped(content)]):
        image.write_bytes(bytes(damaged))
        with stacked(home.again(), [MIDDLE, BASE], tmp_path / f"again {number}") as merged:
            assert seen(merged) == truth


def _flipped(content: bytearray) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 1
    return bytes(changed)


def test_inodes_that_mean_something_else_now(home: Home, tmp_path: Path) -> None:
    """Somebody has wiped the workspace: chunked files of a kept image would have other inodes."""
    with stacked(home.plane, [MIDDLE, BASE], tmp_path / "stack"):
        pass
    home.plane.release(FQRN)
    wait_until(lambda: not pids_serving(home.mount))
    table = load_settings(FQRN, home.etc, home.overrides).cache.workspace / f"inodes.{FQRN}"
    table.unlink()
    plane = home.again()
    plane.repository(TOP)  # takes the numbers that another layer had
    with stacked(plane, [MIDDLE, BASE], tmp_path / "again") as merged:
        assert (merged / "big").read_bytes() == BIG


def test_a_new_revision_changes_nothing(tmp_path: Path) -> None:
    with published(tmp_path / "repository") as stored:
        stored.publish({BASE.path: [file("/a", b"old"), file("/b", b"old too")]})
        with (
            driver_home(tmp_path / "home", stored.etc) as home,
            stacked(home.plane, [BASE], tmp_path / "stack") as merged,
        ):
            assert (merged / "a").read_bytes() == b"old"
            stored.publish({BASE.path: [file("/a", b"new")]}, remove=[BASE.path])
            home.plane.release(FQRN)
            with stacked(home.plane, [BASE], tmp_path / "new") as new:
                assert seen(new).keys() == {b"", b"/a"}
                assert (new / "a").read_bytes() == b"new"
            assert sorted(os.listdir(merged)) == ["a", "b"]
            assert (merged / "b").read_bytes() == b"old too"


def test_a_chain_that_an_image_cannot_hold(tmp_path: Path) -> None:
    """It is given out by FUSE alone."""
    with published(tmp_path / "repository") as stored:
        stored.publish({BASE.path: [file("/a", b"content", xattrs={b"odd.name": b"space"})]})
        with driver_home(tmp_path / "home", stored.etc) as home:
            with home.plane.lower([BASE]) as lower:
                assert not lower.data
            with stacked(home.plane, [BASE], tmp_path / "stack") as merged:
                assert (merged / "a").read_bytes() == b"content"
            assert not list((home.path / "cvmfs/.images").iterdir())


def test_layers_that_are_not_at_the_bottom(home: Home) -> None:
    with home.plane.lower([TOP], bottom=False) as lower:
        assert not lower.data


def test_owners_that_are_not_the_stored_ones(tmp_path: Path) -> None:
    """In an image as on the FUSE plane; another map is another image."""
    maps = {name: tmp_path / name for name in ("CVMFS_UID_MAP", "CVMFS_GID_MAP")}
    with published(tmp_path / "repository") as stored:
        stored.publish({BASE.path: [directory("/d", uid=3, gid=4), file("/d/a", b"content", uid=1, gid=2)]})
        for first in (1000, 2000):
            maps["CVMFS_UID_MAP"].write_text(f"0 {first}\n1 {first + 1}\n* 65534\n")
            maps["CVMFS_GID_MAP"].write_text(f"2 {first + 2}\n4 {first + 4}\n")
            overrides = {name: str(path) for name, path in maps.items()}
            place = tmp_path / f"stack{first}"
            with driver_home(tmp_path / "home", stored.etc, **overrides) as home:
                with home.plane.lower([BASE]) as lower:
                    assert lower.data
                with stacked(home.plane, [BASE], place, writable=True) as merged:
                    for tree in (merged, home.plane.repository(BASE) / os.fsdecode(BASE.path[1:])):
                        found = [os.stat(tree / name) for name in ("d", "d/a")]
                        assert [each.st_uid for each in found] == [65534, first + 1]
                        assert [each.st_gid for each in found] == [first + 4, first + 2]
                    (merged / "d/a").chmod(0o600)  # a copy gets the same owner
                    status = os.stat(place / "upper/d/a")
                    assert (status.st_uid, status.st_gid) == (first + 1, first + 2)


def test_the_choice(stored: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: tuple[Path, Path, dict[str, str]] = (tmp_path, stored.etc, {})
    assert obstacle(tmp_path) == ""
    assert obstacle(tmp_path, stacked=True) == ""
    assert choose_plane(Choice.AUTO, *arguments).name == "erofs"
    assert choose_plane(Choice.FUSE, *arguments).name == "fuse"
    assert not mounts_below(tmp_path)
    assert os.listdir(tmp_path) == ["cvmfs"]
    monkeypatch.setattr(choice, "obstacle", lambda _, **__: "the kernel is old")
    unsuited = choose_plane(Choice.AUTO, *arguments)
    assert (unsuited.name, unsuited.why) == ("fuse", "erofs not possible: the kernel is old")
    with pytest.raises(PlaneError, match="the kernel is old"):
        choose_plane(Choice.EROFS, *arguments)
