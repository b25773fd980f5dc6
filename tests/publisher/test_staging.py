"""Trees that are made ready without the lock, and what becomes of them under it."""

import io
import os
import stat
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.errors import BusyError, IngestError
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.staging import Staging
from cvmfs_graphdriver.publisher.transaction import Transaction
from tests.support.storage_site import Entries, Site


def _tree(**files: bytes) -> Entries:
    return [
        (TreeEntry(b"/" + name.encode(), stat.S_IFREG | 0o644), io.BytesIO(content))
        for name, content in files.items()
    ]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_staged_tree_is_in_no_storage_until_a_transaction_takes_it(site: Site) -> None:
    repository, content = site.open(), os.urandom(5000)
    with Staging(repository) as staging:
        before = site.files()
        tree = staging.stage(b"/layer", _tree(new=content, empty=b""))
        assert {name: data for name, data in site.files().items() if "spool-" not in name} == before
        with Transaction(repository) as transaction:
            transaction.adopt(staging)
            transaction.mount(tree)
            transaction.publish()
    assert site.tree(b"/layer")[b"/new"][1] == content
    assert site.findings() == []
    assert not [name for name in site.files() if "spool-" in name]


def test_what_the_repository_has_already_stays_as_it_is(site: Site) -> None:
    content = os.urandom(5000)
    repository = site.publish({b"/old": _tree(file=content)})
    places = {path: path.stat().st_ino for path in site.storage.glob("data/??/*")}
    with Staging(repository) as staging:
        tree = staging.stage(b"/new", _tree(file=content, other=b"other"))
        with Transaction(repository) as transaction:
            transaction.adopt(staging)
            assert (transaction.objects.objects_new, transaction.objects.objects_known) == (1, 2)
            transaction.mount(tree)
            transaction.publish()
    assert {path: path.stat().st_ino for path in places} == places
    assert site.findings() == []


def test_a_transaction_that_is_not_published_leaves_nothing(site: Site) -> None:
    repository, before = site.open(), site.files()
    with Staging(repository) as staging:
        staging.stage(b"/layer", _tree(file=os.urandom(5000)))
        with Transaction(repository) as transaction:
            transaction.adopt(staging)
            assert transaction.objects.objects_new == 2
        with repository.lock(wait=0), pytest.raises(BusyError), Transaction(repository):
            pass
    assert site.files() == before


def test_nothing_stays_in_the_spool_of_a_tree_that_is_refused(site: Site) -> None:
    with Staging(site.open()) as staging:
        bad = [*_tree(file=os.urandom(5000)), (TreeEntry(b"/../x", stat.S_IFREG), io.BytesIO(b""))]
        with pytest.raises(IngestError):
            staging.stage(b"/layer", bad)
        assert list(staging.spool.objects()) == []
