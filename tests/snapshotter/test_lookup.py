"""Which repositories are asked, in which order, for how long, and what is said of a miss."""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.layers.chain_index import MissReason
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_id, record_directory, unpacked_directory
from cvmfs_graphdriver.planes.errors import PlaneError
from cvmfs_graphdriver.planes.plane import LayerPath, Lower
from cvmfs_graphdriver.snapshotter.lookup import NotLazy, RepositoryLookup, WantedLayer
from cvmfs_graphdriver.snapshotter.snapshot import LazySource
from tests.support.project import PROJECT

LAYER, DIFF, BELOW = (ContentDigest.of(name) for name in (b"layer", b"diff", b"below"))
CHAIN = chain_id(BELOW, DIFF)


class DirectoryPlane:
    """Repositories that are directories of this disk, or down, or silent."""

    name = "directories"
    why = "there is no other"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.down: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.ended = threading.Event()

    def repository(self, layer: LayerPath) -> Path:
        self.asked.append(layer.fqrn)
        if layer.fqrn in self.silent:
            self.ended.wait(20)
        if layer.fqrn in self.down:
            raise PlaneError(f"{layer.fqrn} is down")
        return self.root / layer.fqrn

    @contextmanager
    def lower(self, layers: Sequence[LayerPath], *, bottom: bool = True) -> Iterator[Lower]:
        del bottom
        yield Lower([self.root / layer.fqrn for layer in layers])

    def foresee(self, layers: Sequence[LayerPath]) -> None:
        del layers

    def release(self, fqrn: str) -> None:
        del fqrn

    def answers(self, fqrn: str) -> bool:
        return fqrn not in self.silent

    def status(self, problems: Sequence[str] = ()) -> list[tuple[str, str]]:
        del problems
        return []


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DirectoryPlane]:
    """Repository ``indexed`` has a record of the chain, ``stock`` only the layer, ``empty`` nothing."""
    for name in ("indexed", "stock", "empty"):
        (tmp_path / name).mkdir()
    for name in ("indexed", "stock"):
        (tmp_path / name / os.fsdecode(unpacked_directory(LAYER))[1:]).mkdir(parents=True)
    record = tmp_path / "indexed" / os.fsdecode(record_directory(CHAIN))[1:]
    record.mkdir(parents=True)
    links = ChainRecord.of(unpacked_directory(LAYER), LAYER, DIFF).links()
    for name, target in zip(("layer", "diff"), links, strict=True):
        os.symlink(os.fsdecode(target), record / name)
    found = DirectoryPlane(tmp_path)
    yield found
    found.ended.set()


def found_in(fqrn: str, key: str) -> LazySource:
    return LazySource(LayerPath(fqrn, unpacked_directory(LAYER)), key)


def test_the_first_repository_that_has_the_layer_by_either_key(plane: DirectoryPlane) -> None:
    wanted = WantedLayer(CHAIN, BELOW, LAYER)
    assert RepositoryLookup(plane, ["empty", "indexed", "stock"], 5).find(wanted) == found_in(
        "indexed", "chain"
    )
    assert RepositoryLookup(plane, ["stock", "indexed"], 5).find(wanted) == found_in("stock", "layer")


@pytest.mark.parametrize(
    ("repositories", "wanted", "reason", "detail"),
    [
        ([], WantedLayer(CHAIN, BELOW, LAYER), "no-repository", "no repository is configured"),
        (["stock"], WantedLayer(CHAIN, BELOW, None), "no-index", "stock: the repository has no /.chains"),
        (["indexed"], WantedLayer(BELOW, None, None), "no-record", f"no record of the chain {BELOW}"),
        (["indexed"], WantedLayer(CHAIN, None, None), "wrong-chain", "as a base layer"),
        (["indexed"], WantedLayer(None, None, None), "no-key", "not known"),
        (["empty", "stock"], WantedLayer(CHAIN, BELOW, DIFF), "no-index", "; stock: "),
    ],
)  # fmt: skip
def test_a_miss_says_why(
    plane: DirectoryPlane, repositories: list[str], wanted: WantedLayer, reason: str, detail: str
) -> None:
    found = RepositoryLookup(plane, repositories, 5).find(wanted)
    assert isinstance(found, NotLazy)
    assert found.reason == reason
    assert detail in found.detail


def test_a_repository_that_cannot_be_asked_is_left_alone_for_a_while(plane: DirectoryPlane) -> None:
    now = 0.0
    plane.down, plane.silent = {"stock"}, {"empty"}
    lookup = RepositoryLookup(plane, ["stock", "empty", "indexed"], 0.2, lambda: now)
    for _ in range(3):
        assert lookup.find(WantedLayer(CHAIN, BELOW, None)) == found_in("indexed", "chain")
    assert plane.asked.count("stock") == plane.asked.count("empty") == 1
    missed = lookup.find(WantedLayer(BELOW, None, None))
    assert isinstance(missed, NotLazy)
    assert missed.reason == "unreachable"
    assert "stock is down; empty: it gave no answer within 0.2 s; indexed: " in missed.detail
    plane.down, plane.silent, now = set(), set(), 61.0
    assert lookup.find(WantedLayer(None, None, LAYER)) == found_in("stock", "layer")


def test_the_documentation_has_every_reason() -> None:
    text = (PROJECT / "docs/snapshotter.md").read_text().partition("| reason |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z-]+)`", text)) - {"reason"}
    assert documented >= set(MissReason)
    room = PROJECT / "src/cvmfs_graphdriver/snapshotter"
    source = (room / "lookup.py").read_text() + (room / "snapshots.py").read_text()
    assert documented == {*MissReason, *re.findall(r'NotLazy\("([a-z-]+)"', source)}
