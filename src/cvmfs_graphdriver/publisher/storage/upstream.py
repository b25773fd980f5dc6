"""Where a repository's storage is: as commands are told, and in the stock server's words.

Owns: the form of ``CVMFS_UPSTREAM_STORAGE``, ``local,<temporary directory>,<directory>`` or
``S3,<temporary directory>,<name>@<configuration file>`` (CernVM-FS format reference, section 13.1). Must not
know: how any storage works.
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
    """The storage that a definition names. Raises StorageError: it names none that we know."""
    kind, _, rest = definition.partition(",")
    temporary, comma, place = rest.partition(",")
    del temporary  # local storage keeps its temporary files beside its data, where a rename is one step
    if kind == "local" and comma and place.startswith("/"):
        return LocalStorage(Path(place))
    fqrn, _, configuration = place.partition("@")
    if kind == "S3" and fqrn and configuration.startswith("/"):
        return _s3()(Path(configuration), fqrn)
    raise StorageError(
        f"{definition!r} is no storage: it looks like local,DIRECTORY/data/txn,DIRECTORY "
        "or S3,/var/tmp,NAME@FILE"
    )


def storage_at(place: Path | None, fqrn: str) -> Storage:
    """The storage of a repository: a directory (None: the usual one), or where a file of ``CVMFS_S3_*`` says.

    Raises StorageError.
    """
    if place is not None and place.is_file():
        return _s3()(place, fqrn)
    return LocalStorage(place or _USUAL / fqrn)


def create_storage(place: Path | None, fqrn: str) -> Storage:
    """The same for a repository that is to be created. Raises StorageError: something is there already."""
    if place is not None and place.is_file():
        return _s3().create(place, fqrn)
    return LocalStorage.create(place or _USUAL / fqrn)


def _s3() -> "type[S3Storage]":
    """Imported only when it is needed: a client of S3 takes a third of a second, in each worker, too."""
    from cvmfs_graphdriver.publisher.storage.s3 import S3Storage

    return S3Storage
