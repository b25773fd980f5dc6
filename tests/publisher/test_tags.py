"""Tags and going back: what is named stays, the revision's number only grows."""

from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import BusyError, PublisherError, StorageError
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.tags import delete_tag, list_tags, roll_back, set_tag
from cvmfs_graphdriver.publisher.transaction import Transaction
from cvmfs_graphdriver.repository.errors import FormatError
from tests.support.entries import file
from tests.support.storage_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.publish({b"/l": [file("/f", b"one")]})
    return site


def names(site: Site) -> dict[str, int]:
    return {tag.name: tag.revision for tag in list_tags(site.open())}


def test_a_tag_names_the_newest_revision_and_makes_none(site: Site) -> None:
    before = site.open().manifest()
    site.clock += 5
    manifest = set_tag(site.open(), "release", description="the first")
    assert (manifest.revision, manifest.root) == (before.revision, before.root)
    assert manifest == site.open().manifest()
    (tag,) = (tag for tag in list_tags(site.open()) if tag.name == "release")
    assert (tag.root, tag.revision, tag.description) == (before.root, 2, "the first")
    assert (tag.timestamp, tag.size) == (int(site.clock), before.root_size)
    assert site.findings() == []


def test_a_tag_moves(site: Site) -> None:
    set_tag(site.open(), "release")
    site.publish({b"/l": [file("/f", b"two")]})
    assert names(site) == {"trunk": 3, "trunk-previous": 2, "release": 2}
    set_tag(site.open(), "release")
    assert names(site)["release"] == 3
    assert site.findings() == []


def test_a_tag_is_deleted(site: Site) -> None:
    set_tag(site.open(), "release")
    delete_tag(site.open(), "release")
    assert names(site) == {"trunk": 2, "trunk-previous": 1}
    with pytest.raises(PublisherError, match="has no tag release"):
        delete_tag(site.open(), "release")
    assert site.findings() == []


@pytest.mark.parametrize("name", ["", "a b", "trunk", "trunk-previous"])
def test_names_that_are_none(site: Site, name: str) -> None:
    before = site.files()
    for change in (set_tag, delete_tag):
        with pytest.raises(FormatError, match="cannot name a tag"):
            change(site.open(), name)
    with Transaction(site.open()) as transaction:
        if name:
            with pytest.raises(FormatError, match="cannot name a tag"):
                transaction.publish(tag=name)
    assert site.files() == before


def test_going_back_is_a_new_revision(site: Site) -> None:
    set_tag(site.open(), "good")
    old = site.open().manifest()
    site.publish({b"/l": [file("/f", b"bad")], b"/more": []})
    site.clock += 1
    manifest = roll_back(site.open(), "good")
    assert manifest.revision == 4
    assert site.names() == {b"", b"/l", b"/l/f"}
    assert site.tree()[b"/l/f"][1] == b"one"
    assert names(site) == {"trunk": 4, "trunk-previous": 3, "good": 2}
    catalog = site.catalog()
    assert catalog.properties["previous_revision"] == old.root.text
    assert catalog.revision == 4
    catalog.close()
    assert site.findings() == []


def test_going_back_can_be_undone(site: Site) -> None:
    site.publish({b"/l": [file("/f", b"two")]})
    roll_back(site.open(), "trunk-previous")
    assert site.tree()[b"/l/f"][1] == b"one"
    roll_back(site.open(), "trunk-previous")
    assert site.tree()[b"/l/f"][1] == b"two"
    assert site.findings() == []


def test_going_back_to_nowhere(site: Site) -> None:
    before = site.files()
    with pytest.raises(PublisherError, match="has no tag nowhere"):
        roll_back(site.open(), "nowhere")
    assert site.files() == before


def test_changes_wait_for_the_lock(site: Site) -> None:
    with Transaction(site.open()):
        with pytest.raises(BusyError):
            set_tag(site.open(), "release")
        with pytest.raises(BusyError):
            roll_back(site.open(), "trunk-previous")


class Full(LocalStorage):
    """Has no room for a reflog."""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        if name == ".cvmfsreflog":
            raise StorageError("full")
        super().put(name, data)


def test_a_change_that_fails_leaves_everything_as_it_was(site: Site) -> None:
    before = site.files()
    repository = site.open()
    repository.storage = Full(site.storage)
    with pytest.raises(StorageError, match="full"):
        set_tag(repository, "release")
    with pytest.raises(StorageError, match="full"):
        roll_back(repository, "trunk-previous")
    assert site.files() == before
