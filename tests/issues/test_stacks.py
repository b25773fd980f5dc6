"""Known bugs of other tools in how layers hide one another, none of which may be ours.

Each test names the report. Every stack is looked at twice: as a normal image, whose layers are unpacked on
the disk, and as a thin one, whose layers come from a repository.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.tree import tree_entries
from cvmfs_graphdriver.kernel.mount import UmountFlag, umount
from cvmfs_graphdriver.kernel.mountinfo import mount_at, mounts_below
from cvmfs_graphdriver.kernel.overlay import mount_overlay, plain_options
from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.changes import Change, ChangeKind, changes
from cvmfs_graphdriver.layers.merged import Merged
from cvmfs_graphdriver.oci.layer.layer import LayerStream
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.mounts import end
from tests.support.published import FQRN, published
from tests.support.tars import tar_of
from tests.support.trees import SAME, overlay, pack

pytestmark = pytest.mark.root

Stack = Callable[..., Path]
"""Lays tar streams over one another, the base first, and gives where they are seen."""


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info


def names(root: Path) -> set[str]:
    """All that listing finds, each of which must be there when it is asked for."""
    found = set()
    for directory, below, files in os.walk(root):
        for name in (*below, *files):
            path = Path(directory, name)
            path.lstat()
            found.add(str(path.relative_to(root)))
    return found


def unpacked(tmp_path: Path, merged: Path) -> Iterator[Stack]:
    def run(*layers: bytes) -> Path:
        lower: list[Path | int] = []
        for number, layer in enumerate(layers):
            place = tmp_path / f"layer{number}"
            place.mkdir()
            apply_layer(io.BytesIO(layer), place, SAME)
            lower.insert(0, place)
        mount_overlay(
            lower, merged, upper=tmp_path / "upper", work=tmp_path / "work", options=plain_options()
        )
        return merged

    yield run
    umount(merged)


def thin(tmp_path: Path, merged: Path) -> Iterator[Stack]:
    home = tmp_path / "home"
    with published(tmp_path / "repository") as repository:
        plane = FusePlane(home, repository.etc, {"CVMFS_QUOTA_LIMIT": "-1"})

        def run(*layers: bytes) -> Path:
            paths = [LayerPath(FQRN, b"/layers/%02d" % number) for number in range(len(layers))]
            with Transaction(repository.repository) as transaction:
                for path, layer in zip(paths, layers, strict=True):
                    stream = LayerStream("the layer", io.BytesIO(layer))
                    transaction.ingest(path.path, tree_entries(stream, []))
                transaction.publish()
            with plane.lower(paths[::-1]) as lower:
                mount_overlay(
                    lower.layers,
                    merged,
                    upper=tmp_path / "upper",
                    work=tmp_path / "work",
                    data=lower.data,
                    options=lower.options or plain_options(),
                )
            return merged

        yield run
        if mount_at(merged):
            umount(merged)
        for mount in reversed(mounts_below(home)):
            umount(mount.mount_point, UmountFlag.DETACH)
        end(home / FQRN)


@pytest.fixture(params=[unpacked, thin], ids=["normal", "thin"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    for name in ("merged", "upper", "work"):
        (tmp_path / name).mkdir()
    yield from request.param(tmp_path, tmp_path / "merged")


def test_buildkit_2614_a_directory_made_again_by_a_later_layer_is_empty(stack: Stack) -> None:
    merged = stack(
        tar_of(("d", None), ("d/old", b"")), tar_of((".wh.d", b"")), tar_of(("d", None), ("d/new", b""))
    )
    assert names(merged) == {"d", "d/new"}


def test_buildkit_2710_a_directory_over_a_file_does_not_show_what_the_file_hid(stack: Stack) -> None:
    merged = stack(
        tar_of(("d", None), ("d/old", b"")), tar_of(("d", b"a file")), tar_of(("d", None), ("d/new", b""))
    )
    assert names(merged) == {"d", "d/new"}


def test_fuse_overlayfs_136_what_was_deeper_stays_hidden(stack: Stack) -> None:
    base = tar_of(("a", None), ("a/b", None), ("a/b/foo", b""))
    again = tar_of(("a", None), ("a/b", None))
    assert names(stack(base, tar_of((".wh.a", b"")), again)) == {"a", "a/b"}


def test_fuse_overlayfs_136_425_nor_is_it_seen_below_an_opaque_directory(stack: Stack) -> None:
    base = tar_of(("a", None), ("a/b", None), ("a/b/foo", b""))
    again = tar_of(("a", None), ("a/.wh..wh..opq", b""), ("a/b", None), ("a/b/bar", b""))
    assert names(stack(base, again)) == {"a", "a/b", "a/b/bar"}


def test_fuse_overlayfs_151_a_whiteout_hides_that_path_only(stack: Stack) -> None:
    base = tar_of(("x", b""), ("d", None), ("d/x", b""))
    assert names(stack(base, tar_of((".wh.x", b""), ("d", None), ("d/y", b"")))) == {"d", "d/x", "d/y"}


def test_fuse_overlayfs_306_whiteouts_in_opaque_directories_are_not_listed(stack: Stack) -> None:
    base = tar_of(("d", None), ("d/x", b""))
    top = tar_of(("d", None), ("d/.wh..wh..opq", b""), ("d/.wh.x", b""), ("d/.wh.y", b""), ("d/z", b""))
    assert names(stack(base, top)) == {"d", "d/z"}


def test_stargz_2214_whiteouts_of_what_never_was_are_not_listed(stack: Stack) -> None:
    """The directory comes from one layer only, so overlayfs lists it without merging anything."""
    top = tar_of(("home", None), ("home/.wh.changelog.txt", b""), ("home/user", b""))
    assert names(stack(tar_of(("etc", None)), top)) == {"etc", "home", "home/user"}


def test_stargz_2137_layers_without_any_entry(stack: Stack) -> None:
    assert names(stack(tar_of(("f", b"")), tar_of(), tar_of(("g", b"")), tar_of())) == {"f", "g"}


def test_vic_5714_whiteouts_that_are_hard_links_of_one_another(stack: Stack) -> None:
    base = tar_of(("a", b"1"), ("b", b"2"), ("kept", b"3"))
    assert names(stack(base, tar_of((".wh.a", b""), link(".wh.b", ".wh.a")))) == {"kept"}


def test_singularity_538_directories_that_forbid_writing_take_their_content(stack: Stack) -> None:
    closed = tarfile.TarInfo("closed")
    closed.type, closed.mode = tarfile.DIRTYPE, 0o500
    merged = stack(tar_of(closed, ("closed/a", b"1")), tar_of(closed, ("closed/b", b"2")))
    assert names(merged) == {"closed", "closed/a", "closed/b"}
    assert (merged / "closed").stat().st_mode & 0o7777 == 0o500


def made_on_top(tmp_path: Path, *layers: bytes, act: Callable[[Path], None]) -> tuple[Path, list[Path]]:
    """A container's layer over a stack of unpacked ones: the layer, and the others topmost first."""
    stack: list[Path] = []
    for number, layer in enumerate(layers):
        place = tmp_path / f"layer{number}"
        place.mkdir()
        apply_layer(io.BytesIO(layer), place, SAME)
        stack.insert(0, place)
    upper = tmp_path / "upper"
    upper.mkdir()
    with overlay(tmp_path, stack, upper) as merged:
        act(merged)
    return upper, stack


def members(layer: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return set(tar.getnames())


def test_moby_23863_25086_deletions_are_packed_where_they_happened(tmp_path: Path) -> None:
    base = tar_of(("d", None), ("d/x", b"1"), ("d/y", b"2"), ("top", b"3"))

    def act(merged: Path) -> None:
        (merged / "d/x").unlink()
        (merged / "top").unlink()

    upper, _ = made_on_top(tmp_path, base, act=act)
    assert members(pack(upper)) - {"."} == {"d", "d/.wh.x", ".wh.top"}


def test_stacker_627_a_directory_made_again_is_packed_as_opaque(tmp_path: Path) -> None:
    base = tar_of(("d", None), ("d/old", b"1"))

    def act(merged: Path) -> None:
        (merged / "d/old").unlink()
        (merged / "d").rmdir()
        (merged / "d").mkdir()
        (merged / "d/new").touch()

    upper, stack = made_on_top(tmp_path, base, act=act)
    layer = pack(upper)
    assert members(layer) - {"."} == {"d", "d/.wh..wh..opq", "d/new"}
    again = tmp_path / "again"
    again.mkdir()
    apply_layer(io.BytesIO(layer), again, SAME)
    with overlay(tmp_path, [again, *stack]) as merged:
        assert names(merged) == {"d", "d/new"}


def test_moby_37313_an_opaque_directory_is_changed_and_not_deleted(tmp_path: Path) -> None:
    base = tar_of(("d", None), ("d/old", b"1"))

    def act(merged: Path) -> None:
        (merged / "d/old").unlink()
        (merged / "d").rmdir()
        (merged / "d").mkdir(0o700)

    upper, stack = made_on_top(tmp_path, base, act=act)
    below = [os.fsencode(path) for path in stack]
    found = changes(Merged([os.fsencode(upper), *below]), Merged(below))
    assert {(change.path, change.kind) for change in found} == {
        (b"/d", ChangeKind.MODIFIED),
        (b"/d/old", ChangeKind.DELETED),
    }
    assert isinstance(found[0], Change)


def test_containers_storage_141_a_directory_that_is_new_hides_nothing_of_that_name(tmp_path: Path) -> None:
    base = tar_of(("d", None))
    upper, _ = made_on_top(tmp_path, base, act=lambda merged: (merged / "d/new").mkdir(0o711))
    layer = pack(upper)
    assert not members(layer) & {"d/.wh.new", ".wh.d"}
    again = tmp_path / "again"
    again.mkdir()
    apply_layer(io.BytesIO(layer), again, SAME)
    assert (again / "d/new").stat().st_mode & 0o7777 == 0o711
