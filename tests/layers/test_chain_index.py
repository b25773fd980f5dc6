"""Look-ups in an index that a conversion wrote, in a mounted repository."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion.convert import convert
from cvmfs_graphdriver.conversion.layout import UnpackedLayout
from cvmfs_graphdriver.layers.chain_index import ChainIndex, Miss, MissReason
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord, chain_ids, record_directory, unpacked_directory
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.planes.fuse_plane import FusePlane
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.images import TestLayer, write_layout
from tests.support.published import Published, published
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

_LAYERS = [TestLayer(tar_of({name: b"x"})) for name in ("one", "two", "three")]
_DIGESTS = [ContentDigest.parse(layer.digest) for layer in _LAYERS]
_DIFF_IDS = [ContentDigest.parse(layer.diff_id) for layer in _LAYERS]
_CHAINS = list(chain_ids(_DIFF_IDS))
_ABSENT = ContentDigest.of(b"absent")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    place = tmp_path_factory.mktemp("site")
    with published(place) as made:
        write_layout(place / "image", _LAYERS)
        source = LayoutImage(place / "image")
        convert(source, load_image(source, None), made.repository, UnpackedLayout(), Watcher())
        with Transaction(made.repository) as transaction:
            transaction.remove(unpacked_directory(_DIGESTS[2]))
            transaction.publish()
        yield made


@contextmanager
def mounted(site: Published, place: Path) -> Iterator[ChainIndex]:
    plane = FusePlane(place / "mounts", site.etc, {"CVMFS_CACHE_BASE": str(place / "cache")})
    root = os.open(plane.mount_point(site.fqrn), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield ChainIndex.of_mount(root)
    finally:
        os.close(root)
        plane.release(site.fqrn)


def reason(found: object) -> MissReason:
    assert isinstance(found, Miss)
    assert found.detail
    return found.reason


@pytest.mark.root
def test_layers_of_a_mounted_repository(site: Published, tmp_path: Path) -> None:
    with mounted(site, tmp_path) as index:
        below = [None, *_CHAINS]
        for number in (0, 1):
            record = ChainRecord(unpacked_directory(_DIGESTS[number]), _DIGESTS[number], _DIFF_IDS[number])
            assert index.by_chain(_CHAINS[number], below[number]) == record
            assert index.by_layer(_DIGESTS[number]) == record.directory
        # The last one's layer has been removed without its record.
        assert reason(index.by_chain(_CHAINS[2], _CHAINS[1])) is MissReason.NO_LAYER
        assert reason(index.by_layer(_DIGESTS[2])) is MissReason.NO_LAYER
        assert reason(index.by_layer(_ABSENT)) is MissReason.NO_LAYER
        assert reason(index.by_chain(_ABSENT, None)) is MissReason.NO_RECORD
        assert reason(index.by_chain(ContentDigest("sha512", "0" * 128), None)) is MissReason.NO_RECORD
        # On top of another chain, it is another chain.
        for parent in (None, _CHAINS[1], _ABSENT):
            assert reason(index.by_chain(_CHAINS[1], parent)) is MissReason.WRONG_CHAIN
        assert reason(index.by_chain(_CHAINS[0], _ABSENT)) is MissReason.WRONG_CHAIN


def test_a_repository_without_an_index(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(unpacked_directory(_DIGESTS[0])[1:])).mkdir(parents=True)
    root = os.open(tmp_path, os.O_PATH)
    try:
        index = ChainIndex.of_mount(root)
        assert reason(index.by_chain(_CHAINS[0], None)) is MissReason.NO_INDEX
        assert index.by_layer(_DIGESTS[0]) == unpacked_directory(_DIGESTS[0])
    finally:
        os.close(root)


def test_a_repository_that_cannot_be_asked_is_not_a_miss() -> None:
    def look(path: bytes) -> None:
        raise OSError(5, "Input/output error", path)

    index = ChainIndex(look)
    with pytest.raises(OSError, match="Input/output"):
        index.by_chain(_CHAINS[0], None)
    with pytest.raises(OSError, match="Input/output"):
        index.by_layer(_DIGESTS[0])


def test_links_can_be_followed_by_others(tmp_path: Path) -> None:
    at = tmp_path / os.fsdecode(record_directory(_CHAINS[0])[1:])
    at.mkdir(parents=True)
    record = ChainRecord(unpacked_directory(_DIGESTS[0]), _DIGESTS[0], _DIFF_IDS[0])
    for name, target in zip(("layer", "diff"), record.links(), strict=True):
        (at / name).symlink_to(os.fsdecode(target))
    (tmp_path / os.fsdecode(record.directory[1:])).mkdir(parents=True)
    # The link is right for those who follow it, too.
    assert (at / "layer").resolve() == tmp_path / os.fsdecode(record.directory[1:])
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert ChainIndex.of_mount(root).by_chain(_CHAINS[0], None) == record
    finally:
        os.close(root)
