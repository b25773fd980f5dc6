"""Where a repository's storage is, from the command line or in the stock server's notation.

Owns: the form of ``CVMFS_UPSTREAM_STORAGE``, ``local,<temporary directory>,<directory>`` or
``S3,<temporary directory>,<name>@<configuration file>`` (CernVM-FS format reference, section 13.1). Must not
know: how a storage works.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_graphdriver.publisher.errors import StorageError
from cvmfs_graphdriver.publisher.storage.interface import Storage
from cvmfs_graphdriver.publisher.storage.local import LocalStorage

if TYPE_CHECKING:
    from cvmfs_graphdriver.publisher.storage.s3 import S3Storage

__all__ = ["create_storage", "open_storage", "storage_at"]

_USUAL = Path("/srv/cvmfs")


def open_storage(definition: str) -> Storage:
    """The storage that a definition names. Raises StorageError: it is not a known form."""
    kind, _, rest = definition.partition(",")
    temporary, comma, place = rest.partition(",")
    del temporary  # local storage keeps temporary files beside its data, where a rename is atomic
    if kind == "local" and comma and place.startswith("/"):
        return LocalStorage(Path(place))
    fqrn, _, configuration = place.partition("@")
    if kind == "S3" and fqrn and configuration.startswith("/"):
        return _s3()(Path(configuration), fqrn)
    raise StorageError(
        f"{definition!r} is not a valid storage: write local,DIRECTORY/data/txn,DIRECTORY "
        "or S3,/var/tmp,NAME@FILE"
    )


def storage_at(place: Path | None, fqrn: str) -> Storage:
    """The storage of a repository: a directory (None: the default one), or a file with ``CVMFS_S3_*``.

    Raises StorageError.
    """
    if place is not None and place.is_file():
        return _s3()(place, fqrn)
    return LocalStorage(place or _USUAL / fqrn)


def create_storage(place: Path | None, fqrn: str) -> Storage:
    """The storage for a new repository. Raises StorageError: the place is not empty."""
    if place is not None and place.is_file():
        return _s3().create(place, fqrn)
    return LocalStorage.create(place or _USUAL / fqrn)


def _s3() -> "type[S3Storage]":
    """Import it only when needed: an S3 client takes a third of a second, in each worker too."""
    from cvmfs_graphdriver.publisher.storage.s3 import S3Storage

    return S3Storage
