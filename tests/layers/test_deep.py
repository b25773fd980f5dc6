"""Trees deeper than calls and longer than paths may be; layers that change while they are read."""

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.layers.apply import apply_layer
from cvmfs_graphdriver.layers.changes import ChangeKind, changes, size_of
from cvmfs_graphdriver.layers.merged import Merged
from cvmfs_graphdriver.layers.remove import remove_directory
from cvmfs_graphdriver.layers.store import LayerStore
from tests.support.trees import SAME, directories, pack

pytestmark = pytest.mark.root

DEPTH = 1500
NAME = b"directory"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that goes in any case: pytest itself cannot remove such trees."""
    made = tmp_path / "place"
    made.mkdir()
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


def deepen(top: Path, depth: int = DEPTH) -> None:
    """A chain of directories, with a file in the last."""
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=descriptor)
        below = os.open(NAME, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor))
    os.close(descriptor)


def test_any_depth(place: Path) -> None:
    """Diff, apply, changes, size, replacement and removal."""
    store = LayerStore(place / "home")
    store.prepare()
    one, other = (store.create(name, None).diff for name in ("one", "other"))
    deepen(one)
    packed = pack(one)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
    assert len(names) == DEPTH + 1
    assert names[-1] == "directory/" * DEPTH + "file"
    apply_layer(io.BytesIO(packed), other, SAME)
    assert pack(other) == packed
    found = changes(Merged([os.fsencode(other)]), Merged())
    assert len(found) == DEPTH + 1
    assert {change.kind for change in found} == {ChangeKind.ADDED}
    # ext4 may give the same inode numbers, but two trees compared share nothing.
    assert changes(Merged([os.fsencode(other)]), Merged([os.fsencode(one)])) == []
    assert size_of(other) == 0

    with tarfile.open(fileobj=(again := io.BytesIO()), mode="w") as tar:
        tar.addfile(tarfile.TarInfo("directory"))  # in the place of all of it
    apply_layer(io.BytesIO(again.getvalue()), other, SAME)
    assert os.listdir(other) == ["directory"]
    store.remove("one")
    store.remove("other")
    assert os.listdir(place / "home") == []


def test_missing_directories_on_a_long_way_are_made(place: Path) -> None:
    (layer,) = directories(place, "layer")
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("directory/" * DEPTH + "file"))
    apply_layer(io.BytesIO(out.getvalue()), layer, SAME)
    assert len(changes(Merged([os.fsencode(layer)]), Merged())) == DEPTH + 1
    parent = os.open(place, os.O_RDONLY)
    problems: list[OSError] = []
    remove_directory(parent, b"layer", problems.append)
    os.close(parent)
    assert not problems
    assert not layer.exists()


def test_a_container_that_changes_what_is_read(tmp_path: Path) -> None:
    """Files vanish, shrink and become links to the host's; directories become links to the host's."""
    layer, secret, aside = directories(tmp_path, "layer", "secret", "aside")
    (secret / "file").write_bytes(b"secret" * 1000)
    (layer / "dir").mkdir()
    end = threading.Event()

    def disturb() -> None:
        place, elsewhere, file = layer / "dir", aside / "dir", layer / "dir/file"
        while not end.is_set():
            file.write_bytes(b"own" * 100_000)
            os.truncate(file, 1)
            file.unlink()
            file.symlink_to(secret / "file")
            file.unlink()
            file.write_bytes(b"own")
            place.rename(elsewhere)
            place.symlink_to(secret)
            place.unlink()
            elsewhere.rename(place)
            file.unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(300):
            packed = pack(layer)
            assert b"secret" not in packed.replace(os.fsencode(secret), b"")
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:  # whole, whatever happened
                assert set(tar.getnames()) <= {"dir", "dir/file"}
            for change in changes(Merged([os.fsencode(layer)]), Merged()):
                assert change.path in (b"/dir", b"/dir/file")
            size_of(layer)
    finally:
        end.set()
        thread.join()
