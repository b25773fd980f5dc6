"""Where a repository's storage is, in the stock server's words (CernVM-FS format reference, section 13.1).

Owns: the form of ``CVMFS_UPSTREAM_STORAGE``: ``local,<temporary directory>,<directory>``. Must not know: how
any storage works.
"""

from pathlib import Path

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.local import LocalStorage
from cvmfs_graphdriver.publisher.storage import Storage

__all__ = ["open_storage"]


def open_storage(definition: str) -> Storage:
    """The storage that a definition names. Raises StorageError: it names none that we know."""
    kind, _, rest = definition.partition(",")
    temporary, comma, place = rest.partition(",")
    del temporary  # local storage keeps its temporary files beside its data, where a rename is one step
    if kind == "local" and comma and place.startswith("/"):
        return LocalStorage(Path(place))
    raise StorageError(f"{definition!r} is no storage: it looks like local,DIRECTORY/data/txn,DIRECTORY")
