"""Which snapshots somebody means, and what is said of them; tests/containerd asks a real containerd."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.planes.plane import LayerPath
from cvmfs_graphdriver.snapshotter.administration.origins import LayerOrigin, origins_of
from cvmfs_graphdriver.snapshotter.errors import SnapshotterError
from cvmfs_graphdriver.snapshotter.metadata import Metadata
from cvmfs_graphdriver.snapshotter.snapshot import CHAIN_LABEL, LazySource, SnapshotKind
from tests.support.chains import Image

IMAGE = Image("image", 0, 1, 2)
BASE, MIDDLE, TOP = map(str, IMAGE.chains)
CONTAINER = "0123456789ab" + "c" * 52
LAZY = LayerOrigin(BASE, True, "a.org", 7, "/.layers/x", "its chain ID")
PULLED = LayerOrigin(MIDDLE, False, why_not="unreachable: a.org: no host answers")
SILENT = "containerd did not say which layer it unpacked"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A lazy layer, one that was pulled, one of which nothing is known; a container of Docker's above."""
    path = tmp_path / "metadata ?.db"
    with closing(Metadata(path)) as metadata:
        source = LazySource(LayerPath("a.org", b"/.layers/x"), "chain")
        lazy, pulled = f"moby/1/extract-1 {BASE}", f"moby/2/{MIDDLE}"
        metadata.create(SnapshotKind.COMMITTED, lazy, "", {CHAIN_LABEL: BASE}, source=source)
        metadata.create(SnapshotKind.COMMITTED, pulled, lazy, {}, why_not=PULLED.why_not)
        metadata.create(SnapshotKind.COMMITTED, f"moby/3/{TOP}", pulled, {})
        metadata.create(SnapshotKind.COMMITTED, f"moby/4/{CONTAINER}-init", f"moby/3/{TOP}", {})
        metadata.create(SnapshotKind.ACTIVE, f"moby/5/{CONTAINER}", f"moby/4/{CONTAINER}-init", {})
        yield path


def origins(database: Path, name: str) -> list[LayerOrigin]:
    with closing(Metadata(database, reading=True)) as metadata:
        return origins_of(name, metadata, Path("/no/such/socket"), {"a.org": 7})


def test_a_layer_is_named_by_its_chain_or_its_key(database: Path) -> None:
    for name in (MIDDLE, f"moby/2/{MIDDLE}"):
        assert origins(database, name) == [PULLED, LAZY]
    assert origins(database, BASE) == [LAZY]
    top, *below = origins(database, TOP)
    assert (top.lazy, top.why_not.partition(" (")[0], below) == (False, SILENT, [PULLED, LAZY])


def test_a_container_is_named_by_its_id(database: Path) -> None:
    found = origins(database, CONTAINER)
    assert [each.chain for each in found] == [f"moby/4/{CONTAINER}-init", TOP, MIDDLE, BASE]
    assert found[0].why_not == "it was made on this machine"
    assert origins(database, CONTAINER[:12]) == found


@pytest.mark.parametrize("name", [CONTAINER[:11], "app:1", "../..", "' OR 1=1 --", "\0"])
def test_containerd_is_asked_about_anything_else(database: Path, name: str) -> None:
    with pytest.raises(SnapshotterError, match="cannot ask containerd at /no/such/socket"):
        origins(database, name)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SnapshotterError, match="cannot use the database"):
        Metadata(tmp_path / "none.db", reading=True)
    assert not (tmp_path / "none.db").exists()
