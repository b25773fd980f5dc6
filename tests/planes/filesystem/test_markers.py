"""Hidden catalog markers are nowhere to be seen; an image's own file of that name is."""

from contextlib import closing, nullcontext
from pathlib import Path

from cvmfs_graphdriver.client.client import Client
from cvmfs_graphdriver.client.tree.revision import Revision
from cvmfs_graphdriver.planes.erofs.flatten import CatalogAt, LayerTree, flatten
from cvmfs_graphdriver.planes.filesystem.whiteouts import OverlayTree
from cvmfs_graphdriver.repository.catalog.entry import CATALOG_MARKER
from tests.support.entries import file
from tests.support.published import published

PLAIN, OWN, DELETING = b"/l/plain", b"/l/own", b"/l/deleting"
LAYERS = {
    PLAIN: [file("/f", b"1")],
    OWN: [file("/.cvmfscatalog", b"the image's", 0o600), file("/d/.cvmfscatalog", b"here, too")],
    DELETING: [file("/.wh..cvmfscatalog")],
}


def layer(revision: Revision, path: bytes) -> LayerTree:
    node = revision.lookup(path)
    assert node is not None
    mount = revision.mount_of(node)
    at = CatalogAt(mount.digest, 0, mount.catalog)
    return LayerTree(revision.fqrn, path, lambda _: nullcontext(at))


def test_nobody_sees_a_hidden_marker(tmp_path: Path) -> None:
    with published(tmp_path) as repository:
        repository.publish(LAYERS)
        with closing(Client(repository.settings())) as client:
            revision = client.mount()
            tree = OverlayTree(revision)
            plain, own, deleting = map(tree.lookup, LAYERS)
            assert plain
            assert own
            assert deleting
            for view in (revision, tree):
                assert view.child(plain, CATALOG_MARKER) is None
                assert [node.entry.name for node in view.children(plain)] == [b"f"]
                assert view.child(plain, CATALOG_MARKER) is None
            marker = tree.child(own, CATALOG_MARKER)
            assert marker
            assert (marker.entry.size, marker.entry.mode) == (11, 0o100600)
            assert tree.lookup(OWN + b"/d/.cvmfscatalog")
            whiteout = tree.child(deleting, CATALOG_MARKER)
            assert whiteout
            assert whiteout.entry.is_special
            assert set(flatten([layer(revision, PLAIN)]).children) == {b"f"}
            assert set(flatten([layer(revision, PLAIN), layer(revision, OWN)]).children) == {
                *(CATALOG_MARKER, b"d", b"f")
            }
            deleted = flatten([layer(revision, DELETING), layer(revision, OWN)])
            assert set(deleted.children) == {b"d"}
