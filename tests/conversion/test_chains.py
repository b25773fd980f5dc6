"""The records of chains that conversions write, as the publisher stores them."""

import hashlib
from pathlib import Path

import pytest

from cvmfs_graphdriver.conversion import chains
from cvmfs_graphdriver.conversion.chains import needed_records, prune_records, write_records
from cvmfs_graphdriver.conversion.convert import Conversion, convert
from cvmfs_graphdriver.conversion.errors import LayerPlaceError
from cvmfs_graphdriver.conversion.layout import DirectoryLayout, LayerLayout, UnpackedLayout
from cvmfs_graphdriver.oci.digest import ContentDigest
from cvmfs_graphdriver.oci.image.chain import ChainRecord
from cvmfs_graphdriver.oci.image.layout import LayoutImage
from cvmfs_graphdriver.oci.image.source import load_image
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.entries import directory, file
from tests.support.images import TestLayer, write_layout
from tests.support.storage_site import Site
from tests.support.tars import tar_of
from tests.support.watcher import Watcher

_BASE = TestLayer(tar_of({"etc": None, "etc/a": b"one"}))
_TOP = TestLayer(tar_of({"etc/c": b"four"}), "plain")
_OTHER = TestLayer(tar_of({"etc/d": b"five"}), "zstd")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _convert(site: Site, *layers: TestLayer, layout: LayerLayout | None = None) -> Conversion:
    place = site.place / f"image-{len(list(site.place.iterdir()))}"
    write_layout(place, layers)
    source = LayoutImage(place)
    return convert(source, load_image(source, None), site.open(), layout or UnpackedLayout(), Watcher())


def _chains(*layers: TestLayer) -> list[str]:
    """The chain IDs, computed as the specification says it."""
    found: list[str] = []
    for layer in layers:
        text = f"{found[-1]} {layer.diff_id}" if found else ""
        found.append("sha256:" + hashlib.sha256(text.encode()).hexdigest() if text else layer.diff_id)
    return found


def _links(site: Site) -> dict[str, tuple[str, str]]:
    """What the records say, by chain ID."""
    tree = site.tree(b"/.chains")
    found = {}
    for path, (entry, _) in tree.items():
        if entry.is_directory and path.count(b"/") == 2:
            shard, name = path[1:].decode().split("/")
            assert name.startswith(shard)
            layer, diff = tree[path + b"/layer"][0], tree[path + b"/diff"][0]
            assert layer.is_symlink
            assert diff.is_symlink
            found["sha256:" + name] = layer.symlink.decode(), diff.symlink.decode()
    return found


def _unpacked(layer: TestLayer) -> str:
    return f"../../../.layers/{layer.digest[7:9]}/{layer.digest[7:]}/layerfs"


def _remove(site: Site, *layers: TestLayer) -> int:
    with Transaction(site.open()) as transaction:
        for layer in layers:
            transaction.remove(f"/.layers/{layer.digest[7:9]}/{layer.digest[7:]}".encode())
        gone = prune_records(transaction)
        transaction.publish()
    return gone


def test_each_chain_of_an_image_has_a_record(site: Site) -> None:
    conversion = _convert(site, _BASE, _TOP, _BASE)
    one, two, three = _chains(_BASE, _TOP, _BASE)
    assert _links(site) == {
        one: (_unpacked(_BASE), _BASE.diff_id),
        two: (_unpacked(_TOP), _TOP.diff_id),
        three: (_unpacked(_BASE), _BASE.diff_id),
    }
    assert conversion.chain_records == 3
    assert site.findings() == []
    root, index = site.catalog(), site.catalog(b"/.chains")
    assert root.lookup(b"/.chains/" + one[7:9].encode()) is None  # they are not in the root catalog
    assert [each.path for each in index.nested()] == []
    root.close()
    index.close()


def test_layers_side_by_side_have_records_too(site: Site) -> None:
    _convert(site, _BASE, layout=DirectoryLayout(b"/some/layers"))
    assert _links(site) == {
        _BASE.diff_id: (f"../../../some/layers/{_BASE.digest[7:]}", _BASE.diff_id),
    }


def test_converting_again_changes_nothing(site: Site) -> None:
    _convert(site, _BASE, _TOP)
    before = site.files()
    assert _convert(site, _BASE, _TOP).chain_records == 0
    # Another copy of the same layer, differently compressed, serves the chain as well.
    again = TestLayer(_BASE.tar, "zstd")
    assert site.files() == before
    assert _convert(site, again).chain_records == 0
    assert _links(site)[_BASE.diff_id] == (_unpacked(_BASE), _BASE.diff_id)
    assert _remove(site, _BASE) == 1
    assert _convert(site, again).chain_records == 1
    assert _links(site)[_BASE.diff_id] == (_unpacked(again), _BASE.diff_id)


def test_an_image_whose_layers_cannot_have_records_is_converted_all_the_same(site: Site) -> None:
    conversion = _convert(site, _BASE, layout=DirectoryLayout(b"/.thin"))
    assert len(conversion.new) == 1
    (note,) = conversion.notes
    assert "cannot start lazily" in note
    assert _links(site) == {}


def test_records_go_with_their_layers(site: Site) -> None:
    _convert(site, _BASE, _OTHER)
    untouched = site.names(b"/.chains")
    _convert(site, _BASE, _TOP)
    assert _remove(site, _TOP) == 1
    assert site.names(b"/.chains") == untouched
    assert _remove(site, _BASE, _OTHER) == 2
    assert site.names(b"/.chains") == {b"", b"/.cvmfscatalog"}
    assert site.findings() == []


def test_a_damaged_record_is_replaced(site: Site) -> None:
    _convert(site, _BASE)
    right = _links(site)
    at = f"/.chains/{_BASE.diff_id[7:9]}/{_BASE.diff_id[7:]}".encode()
    for name, target in ((b"layer", b"../../../etc"), (b"diff", b"nothing")):
        with Transaction(site.open()) as transaction:
            transaction.write_link(at + b"/" + name, target)
            transaction.publish()
        assert _convert(site, _BASE).chain_records == 1
        assert _links(site) == right


def test_something_in_the_way_of_a_record_is_an_error_before_any_change(site: Site) -> None:
    with Transaction(site.open()) as transaction:
        transaction.write_file(b"/.chains", b"?")
        transaction.publish()
    before = site.files()
    with pytest.raises(LayerPlaceError, match=r"^/\.chains in the repository is in the way"):
        _convert(site, _BASE)
    assert site.files() == before


def test_many_records_are_in_a_catalog_for_each_shard(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "_MOST", 200)
    site.publish({b"/layers": [directory("/x"), file("/f", b"1")]})
    records = {}
    for number in range(70):
        chain, layer = ContentDigest.of(b"c%d" % number), ContentDigest.of(b"l%d" % number)
        at = f"/.chains/{number % 8:x}0/{chain.hex}".encode()
        records[at] = ChainRecord.of(b"/layers/" + layer.hex.encode(), layer, chain)
    first = dict(list(records.items())[:40])
    for each, nested in ((first, 0), (records, 8)):
        with Transaction(site.open()) as transaction:
            write_records(transaction, each)
            transaction.publish()
        index = site.catalog(b"/.chains")
        assert len(index.nested()) == nested
        assert len(_all_records(site)) == len(each)
        index.close()
    assert site.findings() == []
    # A record more touches one shard.
    before = set(site.files())
    chain = ContentDigest.of(b"one more")
    with Transaction(site.open()) as transaction:
        at = f"/.chains/70/{chain.hex}".encode()
        write_records(transaction, {at: ChainRecord.of(b"/layers/" + chain.hex.encode(), chain, chain)})
        transaction.publish()
    assert sum(name.endswith("C") for name in set(site.files()) - before) == 3  # root, index, shard
    assert len(_all_records(site)) == 71
    with Transaction(site.open()) as transaction:
        assert prune_records(transaction) == 71
        transaction.publish()
    assert site.names(b"/.chains") == {b"", b"/.cvmfscatalog"}
    assert site.findings() == []


def _all_records(site: Site) -> set[bytes]:
    return {path for path in site.names(b"/.chains") if path.endswith(b"/layer")}


def test_layers_without_a_place_have_no_record(site: Site) -> None:
    place = site.place / "image"
    write_layout(place, [_BASE, _TOP])
    image = load_image(LayoutImage(place), None)
    with Transaction(site.open()) as transaction:
        assert needed_records(transaction, image.layers, lambda _: None) == {}
