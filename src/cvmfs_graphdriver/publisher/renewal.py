"""Keeping a repository in use that nothing new is published to: its whitelist and its replicable form.

Owns: when more than the whitelist has to be signed. Must not know: how whitelists and manifests are signed.
"""

from cvmfs_graphdriver.publisher.commit import change_repository
from cvmfs_graphdriver.publisher.contents import is_replicable
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.repository.digest import ObjectName, Suffix
from cvmfs_graphdriver.repository.manifest import Manifest
from cvmfs_graphdriver.repository.trust.whitelist import Whitelist

__all__ = ["renew"]


def renew(repository: Repository, *, wait: float = 0.0) -> Whitelist:
    """Sign the whitelist for another period, and the manifest too if replication would break its objects.

    The revision stays the same. Raises PublisherError: the master key is not at hand; StorageError.
    """
    whitelist = repository.resign()
    if not _is_replicable(repository, repository.manifest()):
        with change_repository(repository, wait) as change:
            change.commit.run(change.root, change.base.revision, lambda _: None)
    return whitelist


def _is_replicable(repository: Repository, manifest: Manifest) -> bool:
    return all(
        is_replicable(repository.storage, ObjectName(digest, suffix))
        for digest, suffix in (
            (manifest.certificate, Suffix.CERTIFICATE),
            (manifest.metainfo, Suffix.METAINFO),
        )
        if digest is not None
    )
