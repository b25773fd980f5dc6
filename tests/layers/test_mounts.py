"""Layers as mounts: shared, counted, adopted after a kill; repositories held and let go."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.kernel.errors import MountError
from cvmfs_graphdriver.kernel.mount import UmountFlag, mount, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at, mounts_below
from cvmfs_graphdriver.layers.mounts import LayerMounts
from cvmfs_graphdriver.layers.store import LayerStore, StoredLayer
from cvmfs_graphdriver.oci.image.thin import ThinImage
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from tests.support.mounts import wait_until

pytestmark = pytest.mark.root


class DirectoryPlane:
    """Repositories that are directories of this disk."""

    name = "directories"
    why = "there is no other"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.released: list[str] = []
        self.lowest: list[bool] = []
        self.silent: set[str] = set()
        self.ready = threading.Event()
        self.ready.set()

    @contextmanager
    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> Iterator[Lower]:
        self.lowest.append(bottom)
        self.ready.wait(20)
        yield Lower([self.root / layer.fqrn / os.fsdecode(layer.path[1:]) for layer in layers])

    def repository(self, layer: LayerPath) -> Path:
        return self.root / layer.fqrn

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        del layers

    def release(self, fqrn: str) -> None:
        self.released.append(fqrn)

    def answers(self, fqrn: str) -> bool:
        return fqrn not in self.silent

    def status(self, problems: Sequence[str] = ()) -> list[tuple[str, str]]:
        del problems
        return []


class Case:
    def __init__(self, directory: Path) -> None:
        self.plane = DirectoryPlane(directory / "repositories")
        self.store = LayerStore(directory / "home")
        self.store.prepare()
        self.mounts = self.start()

    def start(self) -> LayerMounts:
        """As a new process does."""
        self.mounts = LayerMounts(self.store, self.plane, idle=0.05)
        self.mounts.adopt()
        return self.mounts

    def base(self, identity: str = "base", parent: str | None = None) -> StoredLayer:
        layer = self.store.create(identity, parent)
        layer.begin_filling()
        (layer.diff / identity).write_text(identity)
        layer.end_filling(None)
        return layer

    def thin(self, identity: str, *urls: str, parent: str | None = None) -> StoredLayer:
        layers = ",".join(f'{{"digest": "{number:064x}", "url": "{url}"}}' for number, url in enumerate(urls))
        image = ThinImage.parse(f'{{"version": "1.0", "origin": "x", "layers": [{layers}]}}'.encode())
        for url in urls:
            place = self.plane.root / url.removeprefix("cvmfs://")
            place.mkdir(parents=True)
            (place / place.name).touch()
        layer = self.store.create(identity, parent)
        layer.begin_filling()
        (layer.diff / "thin.json").write_bytes(image.dump())
        layer.end_filling(image)
        return layer


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    yield Case(tmp_path)
    for found in reversed(mounts_below(tmp_path)):
        umount(found.mount_point, UmountFlag.DETACH)


def test_the_last_put_unmounts_and_leaves_no_mount_point(case: Case) -> None:
    case.base()
    top = case.store.create("top", "base")
    first = case.mounts.get("top")
    assert first == case.mounts.get("top") == top.merged
    assert os.listdir(first) == ["base"]
    case.mounts.put("top")
    assert mount_at(first) is not None
    case.mounts.put("top")
    case.mounts.put("top")
    assert not first.exists()


def test_an_upper_directory_holds_all_changes(case: Case) -> None:
    """Renamed directories, changed attributes: nothing may refer to the layers below."""
    case.base()
    case.store.create("top", "base")
    merged = case.mounts.get("top")
    options = dict(option.partition(b"=")[::2] for option in _options(merged))
    assert options.get(b"redirect_dir") in {None, b"off"}
    assert options.get(b"metacopy", b"off") == b"off"
    assert options.get(b"index", b"off") == b"off"


def _options(path: Path) -> tuple[bytes, ...]:
    found = mount_at(path)
    assert found is not None
    return found.super_options


def test_a_complete_layer_is_read_only(case: Case) -> None:
    case.base()
    case.base("top", "base")
    case.store.create("child", "top")
    with pytest.raises(OSError, match="Read-only"):
        (case.mounts.get("top") / "new").touch()


def test_a_single_layer_needs_no_mount(case: Case) -> None:
    layer = case.base()
    assert case.mounts.get("base") == layer.diff
    case.mounts.put("base")
    assert layer.diff.exists()


def test_thin_and_normal_layers_stack(case: Case) -> None:
    case.thin("thin", "cvmfs://a.org/x/base", "cvmfs://b.org/y/next")
    case.base("normal", "thin")
    case.thin("second", "cvmfs://a.org/x/last", parent="normal")
    case.store.create("top", "second")
    assert sorted(os.listdir(case.mounts.get("top"))) == ["base", "last", "next", "normal"]
    # A thin layer itself shows its own file, and only its own.
    assert sorted(os.listdir(case.mounts.get("second"))) == ["base", "last", "next", "normal", "thin.json"]
    assert case.plane.lowest[-2:] == [False, True]


def test_repositories_go_when_nobody_needs_them(case: Case) -> None:
    case.thin("thin", "cvmfs://a.org/one", "cvmfs://b.org/two")
    for identity in ("c1", "c2"):
        case.store.create(identity, "thin")
        case.mounts.get(identity)
    case.mounts.put("c1")
    time.sleep(0.3)
    assert case.plane.released == []
    case.mounts.put("c2")
    wait_until(lambda: sorted(case.plane.released) == ["a.org", "b.org"])


def test_looking_at_layers_lets_repositories_go_too(case: Case) -> None:
    case.thin("thin", "cvmfs://a.org/one")
    case.store.create("top", "thin")
    assert case.mounts.view("top").parts
    wait_until(lambda: case.plane.released == ["a.org"])


def test_a_slow_repository_holds_up_nobody_else(case: Case) -> None:
    case.thin("thin", "cvmfs://slow.org/one")
    case.base()
    case.store.create("slow", "thin")
    case.store.create("fast", "base")
    case.plane.ready.clear()
    waiting = threading.Thread(target=case.mounts.get, args=("slow",))
    waiting.start()
    try:
        assert os.listdir(case.mounts.get("fast")) == ["base"]
        case.mounts.put("fast")
    finally:
        case.plane.ready.set()
        waiting.join()
    assert mount_at(case.store.get("slow").merged) is not None


def test_a_new_process_adopts_what_is_mounted(case: Case) -> None:
    """It counts as one use, as Docker counts it: Get and Put of a running container leave it mounted."""
    case.base()
    case.store.create("top", "base")
    merged = case.mounts.get("top")
    case.start()
    assert case.mounts.get("top") == merged
    case.mounts.put("top")
    assert mount_at(merged) is not None
    case.mounts.put("top")
    assert mount_at(merged) is None


def test_a_mount_whose_repository_is_not_served_is_not_adopted(case: Case) -> None:
    case.thin("thin", "cvmfs://a.org/one")
    case.store.create("top", "thin")
    merged = case.mounts.get("top")
    case.start()
    assert mount_at(merged) is not None
    case.plane.silent.add("a.org")
    case.start()
    assert mount_at(merged) is None
    assert case.mounts.get("top") == merged


def test_mounts_of_nobody_are_ended(case: Case) -> None:
    case.base()
    orphan = case.store.home / "gone/merged"
    orphan.mkdir(parents=True)
    mount("tmpfs", orphan, "tmpfs")
    case.start()
    assert not orphan.exists()


def test_a_failed_mount_leaves_nothing(case: Case) -> None:
    case.thin("thin", "cvmfs://a.org/one")
    layer = case.store.create("top", "thin")
    subprocess.run(["rm", "-r", case.plane.root], check=True)
    with pytest.raises(MountError, match="No such file"):
        case.mounts.get("top")
    assert not layer.merged.exists()
    assert case.mounts._mounted == {}


def test_all_can_be_dropped(case: Case) -> None:
    case.base()
    for identity in ("one", "two"):
        case.store.create(identity, "base")
        case.mounts.get(identity)
    case.mounts.drop("one")
    case.mounts.drop_all()
    assert mounts_below(case.store.home) == []
