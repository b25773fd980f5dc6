"""The reflog: the real server's, ours like it, and broken ones."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_graphdriver.repository.digest import Algorithm, Digest
from cvmfs_graphdriver.repository.errors import CatalogError
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.reflog import Reference, ReferenceKind, Reflog
from cvmfs_graphdriver.repository.trust.letter import Letter
from tests.repository.test_history import everything
from tests.support.fixtures import NAMES, unpack

FQRN = "x.example.org"
ROWS = [Reference(Digest.of(kind.name.encode()), kind, 100 + kind.value) for kind in ReferenceKind]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    reflog = Reflog.create(tmp_path / "r", fqrn=FQRN)
    for reference in ROWS:
        reflog.add(reference)
    reflog.finish()
    return tmp_path / "r"


@pytest.mark.parametrize("name", NAMES)
def test_rewriting_a_real_reflog_gives_the_same_database(name: str, tmp_path: Path) -> None:
    published = unpack(name, tmp_path / "fixture")
    manifest = Manifest.parse(Letter.parse(published.stored(".cvmfspublished")).body)
    assert manifest.reflog == Digest.of(published.stored(".cvmfsreflog"), manifest.root.algorithm)
    theirs = published.root / ".cvmfsreflog"
    with closing(Reflog.open(theirs, fqrn=published.fqrn)) as reflog:
        references = reflog.references()
    assert {(manifest.root, ReferenceKind.CATALOG), (manifest.history, ReferenceKind.HISTORY)} <= {
        (reference.digest, reference.kind) for reference in references
    }
    ours = Reflog.create(tmp_path / "ours", fqrn=published.fqrn)
    for reference in references:
        ours.add(reference)
    ours.finish()
    assert everything(tmp_path / "ours") == everything(theirs)


def test_changing_a_reflog(file: Path) -> None:
    more = Reference(Digest.of(b"more", Algorithm.RMD160), ReferenceKind.CATALOG, 900)
    with closing(Reflog.open(file, fqrn=FQRN)) as reflog:
        reflog.add(more)
        reflog.add(Reference(ROWS[0].digest, ReferenceKind.HISTORY, 999))  # what is there stays
        reflog.remove(ROWS[1].digest)
        reflog.remove(Digest.of(b"absent"))
        reflog.finish()
    with closing(Reflog.open(file, fqrn=FQRN)) as reflog:
        assert reflog.references() == [ROWS[0], *ROWS[2:], more]


def test_another_repositorys_is_refused(file: Path) -> None:
    with pytest.raises(CatalogError, match=r"the reflog cannot be used: it belongs to .*, not to other\.org"):
        Reflog.open(file, fqrn="other.org")


@pytest.mark.parametrize(
    "row", ["('x', 0, 1)", f"('{Digest.of(b'')}', 9, 1)", "(NULL, 0, 1)", "(x'ff', 0, 1)"]
)
def test_rows_that_are_no_references_are_refused(file: Path, row: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"INSERT INTO refs VALUES {row}")
        connection.commit()
    with closing(Reflog.open(file, fqrn=FQRN)) as reflog, pytest.raises(CatalogError, match="reflog"):
        reflog.references()
