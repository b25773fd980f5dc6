"""Names of revisions: listing, setting and deleting them, and rolling back (format reference, section 6.1).

Owns: what happens to ``trunk`` and ``trunk-previous``, and rollback, which is a new revision with the content
of an old one. Must not know: what a revision contains. Functions that change something take the repository's
lock.
"""

import tempfile
from contextlib import closing
from pathlib import Path

from cvmfs_graphdriver.publisher.commit import change_repository
from cvmfs_graphdriver.publisher.errors import PublisherError
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.repository.catalog.entry import CatalogReference
from cvmfs_graphdriver.repository.catalog.writer import CatalogWriter
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.history import TRUNK, TRUNK_PREVIOUS, History, Tag, check_tag_name
from cvmfs_graphdriver.repository.manifest import Manifest

__all__ = ["delete_tag", "list_tags", "move_trunk", "roll_back", "set_tag"]


def move_trunk(history: History, root: CatalogReference, revision: int, *, now: int) -> None:
    """Point ``trunk`` at a new revision, and ``trunk-previous`` at the one before."""
    trunk = history.tag(TRUNK)
    if trunk:
        history.put(trunk._replace(name=TRUNK_PREVIOUS, description="default undo target"))
    history.put(Tag(TRUNK, root.digest, revision, now, "current HEAD", root.size))


def list_tags(repository: Repository) -> list[Tag]:
    """All tags, the newest revision first."""
    manifest = repository.manifest()
    if manifest.history is None:
        return []
    with tempfile.TemporaryDirectory(prefix="tags-") as scratch:
        path = repository.unpack(ObjectName(manifest.history, Suffix.HISTORY), Path(scratch))
        with closing(History.read(path, fqrn=repository.fqrn)) as history:
            return history.tags()


def set_tag(repository: Repository, name: str, *, description: str = "", wait: float = 0.0) -> Manifest:
    """Name the newest revision; an existing tag is moved. Raises FormatError: the name is invalid."""
    check_tag_name(name)
    with change_repository(repository, wait) as change:
        base = change.base
        tag = Tag(name, base.root, base.revision, change.now, description, base.root_size)
        return change.commit.run(change.root, base.revision, lambda history: history.put(tag))


def delete_tag(repository: Repository, name: str, *, wait: float = 0.0) -> Manifest:
    """Delete a tag; what only it retained becomes garbage. Raises PublisherError: there is no such tag."""
    check_tag_name(name)

    def forget(history: History) -> None:
        if not history.remove(name):
            raise PublisherError(f"{repository.fqrn} has no tag {name}")

    with change_repository(repository, wait) as change:
        return change.commit.run(change.root, change.base.revision, forget)


def roll_back(repository: Repository, name: str, *, wait: float = 0.0) -> Manifest:
    """Publish the content of an old revision as a new one. All tags but ``trunk-previous`` stay as they are.

    Raises PublisherError: there is no such tag.
    """
    with change_repository(repository, wait) as change:
        tag = next((tag for tag in list_tags(repository) if tag.name == name), None)
        if tag is None:
            raise PublisherError(f"{repository.fqrn} has no tag {name}")
        revision = change.base.revision + 1
        path = change.directory / "root"
        repository.fetch_catalog(tag.root, path)
        with CatalogWriter.open(path, mountpoint=b"") as catalog:
            catalog.advance(now=change.now, previous=tag.root, revision=revision)
            size = catalog.finish()
        root = CatalogReference(b"", change.objects.put(path.read_bytes(), Suffix.CATALOG), size)
        return change.commit.run(
            root, revision, lambda history: move_trunk(history, root, revision, now=change.now)
        )
