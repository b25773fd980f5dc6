"""Records of chains that lead elsewhere, in circles, or nowhere: a miss with a reason, never a wrong tree."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.layers.chain_index import ChainIndex, Miss, MissReason
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import chain_id, record_directory, unpacked_directory

_LAYER, _DIFF, _OTHER = (ContentDigest.of(text) for text in (b"layer", b"diff", b"other"))
_PLACE = os.fsdecode(unpacked_directory(_LAYER)[1:])
_RECORD = os.fsdecode(record_directory(_DIFF)[1:])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree as of a repository, with one right record, and a neighbour that it must not reach."""
    root = tmp_path / "repository"
    for place in (root / _PLACE, root / _RECORD, tmp_path / "other" / _PLACE):
        place.mkdir(parents=True)
    write(root, f"../../../{_PLACE}", str(_DIFF))
    return root


@pytest.fixture
def index(tree: Path) -> Iterator[ChainIndex]:
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    yield ChainIndex.of_mount(root)
    os.close(root)


def write(root: Path, layer: str, diff: str) -> None:
    for name, target in (("layer", layer), ("diff", diff)):
        (root / _RECORD / name).unlink(missing_ok=True)
        (root / _RECORD / name).symlink_to(target)


def miss(
    index: ChainIndex, *, chain: ContentDigest = _DIFF, parent: ContentDigest | None = None
) -> MissReason:
    found = index.by_chain(chain, parent)
    assert isinstance(found, Miss), found
    assert found.detail.isprintable()
    assert len(found.detail) < 1000
    return found.reason


def test_the_right_record_is_found(index: ChainIndex) -> None:
    assert not isinstance(index.by_chain(_DIFF, None), Miss)


@pytest.mark.parametrize(
    "target",
    [
        f"../../../../other/{_PLACE}",
        f"/cvmfs/other.example.org/{_PLACE}",
        f"/{_PLACE}",
        f"../../../.layers/../{_PLACE}",
        "../../../etc",
        f"../../../{_RECORD}",
        ".",
        "layer",
        "../../../.layers/\x1b[2J/" + "0" * 64,
        "../../../" + "a/" * 2000 + _LAYER.hex,
    ],
)
def test_a_link_to_another_place_is_not_followed(tree: Path, index: ChainIndex, target: str) -> None:
    write(tree, target, str(_DIFF))
    assert miss(index) is MissReason.MALFORMED


def test_a_diff_id_that_does_not_give_the_chain(tree: Path, index: ChainIndex) -> None:
    write(tree, f"../../../{_PLACE}", str(_OTHER))
    assert miss(index) is MissReason.WRONG_CHAIN
    # The record of one chain in the place of another's.
    two = chain_id(_DIFF, _OTHER)
    at = tree / os.fsdecode(record_directory(two)[1:])
    at.parent.mkdir(parents=True, exist_ok=True)
    (tree / _RECORD).rename(at)
    assert miss(index, chain=two, parent=_OTHER) is MissReason.WRONG_CHAIN
    assert not isinstance(index.by_chain(two, _DIFF), Miss)


@pytest.mark.parametrize("diff", ["x" * 4095, "sha512:" + "0" * 128, "layer", "../diff"])
def test_a_diff_that_is_not_a_digest(tree: Path, index: ChainIndex, diff: str) -> None:
    write(tree, f"../../../{_PLACE}", diff)
    assert miss(index) is MissReason.MALFORMED


def test_things_that_are_not_links(tree: Path, index: ChainIndex) -> None:
    for name in ("layer", "diff"):
        place = tree / _RECORD / name
        target = place.readlink()
        place.unlink()
        assert miss(index) is MissReason.MALFORMED  # incomplete
        os.mkfifo(place)
        assert miss(index) is MissReason.MALFORMED
        place.unlink()
        place.write_bytes(bytes(1 << 20))
        assert miss(index) is MissReason.MALFORMED
        place.unlink()
        place.symlink_to(target)
    assert not isinstance(index.by_chain(_DIFF, None), Miss)


def test_links_on_the_way_are_not_followed(tree: Path, tmp_path: Path, index: ChainIndex) -> None:
    # Of the layer: it looks right, and is somewhere else.
    (tree / _PLACE).rmdir()
    (tree / _PLACE).symlink_to(tmp_path / "other" / _PLACE)
    assert miss(index) is MissReason.NO_LAYER
    assert isinstance(index.by_layer(_LAYER), Miss)
    (tree / ".layers").rename(tree / "layers")
    (tree / ".layers").symlink_to("layers")
    assert miss(index) is MissReason.NO_LAYER
    # Of the index.
    (tree / ".chains").rename(tree / "chains")
    (tree / ".chains").symlink_to("chains")
    assert miss(index) is MissReason.NO_RECORD
    (tree / ".chains").unlink()
    (tree / ".chains").symlink_to(".chains")
    assert miss(index) is MissReason.NO_RECORD
