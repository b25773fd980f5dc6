"""What the tests of the graph driver share: a repository with layers, and its server."""

import io
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_graphdriver.publisher.creation import create_repository
from cvmfs_graphdriver.publisher.ingest.tree_entry import TreeEntry
from cvmfs_graphdriver.publisher.server import serve
from cvmfs_graphdriver.publisher.storage.local import LocalStorage
from cvmfs_graphdriver.publisher.transaction import Transaction

FQRN = "thin.example.org"


@pytest.fixture(scope="module")
def repository() -> Iterator[tuple[str, Path]]:
    """A repository with two layers; gives its server's URL and its public key."""

    def entry(path: bytes, content: bytes | None) -> tuple[TreeEntry, io.BytesIO | None]:
        mode = stat.S_IFDIR | 0o755 if content is None else stat.S_IFREG | 0o644
        return TreeEntry(path, mode, mtime=1_700_000_000), None if content is None else io.BytesIO(content)

    with tempfile.TemporaryDirectory(prefix="repository-") as name:
        where = Path(name)
        storage = LocalStorage.create(where / FQRN)
        made = create_repository(FQRN, storage, where / "keys")
        with Transaction(made) as transaction:
            transaction.ingest(
                b"/layers/aa",
                [
                    entry(b"", None),
                    entry(b"/base", b"from the base\n"),
                    entry(b"/gone", b"deleted above"),
                    entry(b"/full", None),
                    entry(b"/full/old", b""),
                ],
            )
            transaction.ingest(
                b"/layers/bb",
                [
                    entry(b"", None),
                    entry(b"/.wh.gone", b""),
                    entry(b"/full", None),
                    entry(b"/full/.wh..wh..opq", b""),
                    entry(b"/full/new", b"new\n"),
                ],
            )
            transaction.publish()
        with serve(where) as served:
            yield served.url, where / "keys" / f"{FQRN}.pub"
