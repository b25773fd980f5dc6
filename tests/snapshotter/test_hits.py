"""Layers that a repository has: committed at once, and mounted so that containers see them."""

import os
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_id, record_directory, unpacked_directory
from cvmfs_graphdriver.planes.choice import obstacle
from cvmfs_graphdriver.snapshotter.snapshot import CHAIN_LABEL, LAYER_LABEL
from tests.support.chains import Image, digest_of, record
from tests.support.entries import Item, directory, file
from tests.support.mounts import pids_serving, wait_until
from tests.support.published import FQRN, Published, published
from tests.support.snapshotter_process import SnapshotterProcess, code_of, snapshotter

pytestmark = pytest.mark.root

TREES: list[list[Item]] = [
    [directory("", 0o751, uid=3, gid=4), directory("/etc"), file("/etc/motd", b"base"), file("/gone", b"x")],
    [directory("/etc"), file("/etc/motd", b"middle"), file("/.wh.gone"), file("/kept", b"kept" * 1000)],
    [file("/top", b"top")],
]


INDEXED, STOCK, WRONG = Image("indexed", 0, 1, 2), Image("stock", 0, 1), Image("wrong", 0, 1)
TWICE = Image("indexed", 0, 1, 0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    with published(tmp_path_factory.mktemp("repository")) as found:
        wrong = ChainRecord.of(unpacked_directory(INDEXED.layers[2]), INDEXED.layers[2], INDEXED.diff_ids[2])
        found.publish(
            INDEXED.trees(TREES)
            | INDEXED.records([0, 1, 2])
            | TWICE.records([2])
            | STOCK.trees(TREES[:2])
            | {record_directory(WRONG.chains[1]): record(wrong)}
        )
        yield found


@pytest.fixture(scope="module", params=["fuse", "erofs"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    name: str = request.param
    if name == "erofs" and (why := obstacle(tmp_path_factory.mktemp("probe"), stacked=True)):
        pytest.skip(why)
    return name


@pytest.fixture
def running(repository: Published, plane: str, tmp_path: Path) -> Iterator[SnapshotterProcess]:
    with snapshotter(tmp_path, [FQRN], repository.etc, plane) as found:
        yield found


def pull(running: SnapshotterProcess, image: Image, *, layer: bool = False) -> str:
    """Prepare all layers of an image as containerd does; returns the name of the topmost snapshot."""
    parent = ""
    for number, chain in enumerate(image.chains):
        labels = image.labels(number, layer=layer)
        with code_of("ALREADY_EXISTS"):
            running.prepare(f"ns/{number}/extract-1 {chain}", parent, labels)
        filters = f'labels."{CHAIN_LABEL}"=={chain},parent=="{parent}",kind==committed'
        (found,) = running.infos(filters)
        assert (found.kind, dict(found.labels)) == (3, labels)
        parent = found.name
    return parent


def sees(target: Path) -> None:
    """The image's three layers, merged."""
    assert sorted(os.listdir(target)) == ["etc", "kept", "top"]
    assert (target / "etc/motd").read_bytes() == b"middle"
    assert (target / "kept").read_bytes() == b"kept" * 1000
    assert (target / "top").read_bytes() == b"top"


def test_an_indexed_image_is_there_without_a_download(running: SnapshotterProcess, plane: str) -> None:
    top = pull(running, INDEXED)
    assert running.directories() == []
    mounts = running.prepare("container", top)
    assert len(mounts[0].lower) == {"fuse": len(TREES), "erofs": 1}[plane]
    assert [each.partition("=")[0] for each in mounts[0].options].count("lowerdir") == 1
    with running.mounted(mounts) as target:
        sees(target)
        (target / "etc/motd").write_bytes(b"mine")
        (target / "top").unlink()
        assert sorted(os.listdir(target)) == ["etc", "kept"]
    with running.mounted(running.mounts("container")) as target:
        assert (target / "etc/motd").read_bytes() == b"mine"
    with running.mounted(running.view("view", top)) as target:
        sees(target)


def test_a_pulled_image_is_made_ready_for_its_first_start(running: SnapshotterProcess, plane: str) -> None:
    if plane == "fuse":
        pytest.skip("there is nothing to be made")
    top = pull(running, INDEXED)
    images = running.state / "cvmfs/.images"
    wait_until(lambda: f"prepared {len(TREES)} layers of {FQRN}" in running.log.read_text(), 20)
    made = {each: each.stat().st_ino for each in images.glob("*.erofs")}
    assert made != {}
    assert running.standing() == []
    with running.mounted(running.prepare("container", top)) as target:
        sees(target)
    assert {each: each.stat().st_ino for each in images.glob("*.erofs")} == made


def test_a_repository_without_index_is_used_by_the_digests_of_layers(running: SnapshotterProcess) -> None:
    assert running.prepare("key", "", STOCK.labels(0))[0].type == "bind"  # a miss
    top = pull(running, STOCK, layer=True)
    with running.mounted(running.view("view", top)) as target:
        assert sorted(os.listdir(target)) == ["etc", "kept"]


def test_a_layer_above_a_lazy_one_is_unpacked(running: SnapshotterProcess) -> None:
    top = pull(running, INDEXED)
    mine = chain_id(INDEXED.chains[-1], digest_of("mine"))
    with running.mounted(running.prepare("new", top, {CHAIN_LABEL: str(mine)})) as target:
        sees(target)
        (target / "added").write_text("here")
        (target / "kept").unlink()
    running.commit(f"ns/9/{mine}", "new", {CHAIN_LABEL: str(mine)})
    with running.mounted(running.prepare("container", f"ns/9/{mine}")) as target:
        assert sorted(os.listdir(target)) == ["added", "etc", "top"]


def test_the_same_chain_is_stored_once(running: SnapshotterProcess) -> None:
    pull(running, INDEXED)
    with code_of("ALREADY_EXISTS"):
        running.prepare("other/1/extract", "", INDEXED.labels(0))
    assert len(running.infos()) == len(TREES)


def test_a_layer_that_occurs_twice_counts_at_its_topmost_place(running: SnapshotterProcess) -> None:
    with running.mounted(running.prepare("container", pull(running, TWICE))) as target:
        assert sorted(os.listdir(target)) == ["etc", "gone", "kept"]
        assert (target / "etc/motd").read_bytes() == b"base"


@pytest.mark.parametrize(
    "labels",
    [
        {CHAIN_LABEL: str(WRONG.chains[1])},
        {CHAIN_LABEL: "sha256:../../etc"},
        {CHAIN_LABEL: "sha256:" + "A" * 64},
        {CHAIN_LABEL: str(INDEXED.chains[1])},  # which is not a base layer's
        {CHAIN_LABEL: str(digest_of("unknown")), LAYER_LABEL: "x" * 4000},
    ],
)
def test_what_does_not_fit_is_pulled(running: SnapshotterProcess, labels: Mapping[str, str]) -> None:
    (mount,) = running.prepare("key", "", labels)
    assert mount.type == "bind"
    assert running.stat("key").kind == 2


def test_lazy_layers_are_refused_in_a_user_namespace(repository: Published, tmp_path: Path) -> None:
    """Containerd would map the directory that our mounts are in, and show that without them."""
    with snapshotter(tmp_path, [FQRN], repository.etc, more="remap_ids = true") as running:
        labels = {f"containerd.io/snapshot/{kind}mapping": "0:100000:65536" for kind in ("uid", "gid")}
        top = pull(running, INDEXED)
        with code_of("FAILED_PRECONDITION"):
            running.prepare("container", top, labels)
        running.prepare("container", top)


@contextmanager
def offline(repository: Published) -> Iterator[None]:
    """Let clients that are configured from now on look for the server where there is none."""
    file = repository.etc / "default.local"
    before = file.read_text()
    file.write_text(before.replace(repository.served.url, "http://127.0.0.1:1"))
    try:
        yield
    finally:
        file.write_text(before)


def test_everything_is_mounted_again_after_a_reboot_without_network(
    running: SnapshotterProcess, repository: Published
) -> None:
    top = pull(running, INDEXED)
    with running.mounted(running.prepare("container", top)) as target:
        sees(target)
    running.stop(signal.SIGKILL)
    running.unmount_everything()
    with offline(repository):
        running.start()
        assert running.standing() == []
        with running.mounted(running.mounts("container")) as target:
            sees(target)


def test_without_its_repository_a_layer_is_pulled_and_the_reason_kept(
    running: SnapshotterProcess, repository: Published
) -> None:
    with offline(repository):
        for key in ("one", "two"):
            (mount,) = running.prepare(key, "", INDEXED.labels(0))
            assert mount.type == "bind"
    with sqlite3.connect(running.state / "metadata.db") as database:
        reasons = [reason for (reason,) in database.execute("SELECT why_not FROM snapshots")]
    assert len(reasons) == 2
    assert all(reason.startswith(f"unreachable: {FQRN}: ") for reason in reasons)
    assert running.log.read_text().count("is not asked again for 60 s") == 1


def test_a_container_outlives_the_snapshotter(running: SnapshotterProcess) -> None:
    with running.mounted(running.prepare("container", pull(running, INDEXED))) as target:
        running.stop(signal.SIGKILL)
        sees(target)
        running.start()
        with running.mounted(running.mounts("container")) as again:
            sees(again)


def test_a_repository_whose_keeper_died_is_mounted_again(running: SnapshotterProcess) -> None:
    top = pull(running, INDEXED)
    before = running.prepare("container", top)
    for pid in pids_serving(running.state / "cvmfs" / FQRN):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not pids_serving(running.state / "cvmfs" / FQRN))
    after = running.mounts("container")
    assert after != before
    with running.mounted(after) as target:
        sees(target)


def test_cleanup_unmounts_what_nobody_uses(running: SnapshotterProcess) -> None:
    top = pull(running, INDEXED)
    running.prepare("container", top)
    assert running.standing()
    running.cleanup()
    assert running.standing()
    running.remove("container")
    running.cleanup()
    assert (running.standing(), running.directories()) == ([], [])
    for info in reversed(running.infos()):
        running.remove(info.name)
    assert running.infos() == []
