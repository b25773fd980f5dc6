"""The state of the repositories that are mounted below a directory.

Owns: asking each one's server. Must not know: what is made of the answers.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cvmfs_graphdriver.client.administration.running import ask_status
from cvmfs_graphdriver.client.administration.status import Status
from cvmfs_graphdriver.client.configuration.settings import RepositorySettings
from cvmfs_graphdriver.client.errors import ClientError
from cvmfs_graphdriver.kernel.mountinfo import mounts_below

__all__ = ["MountedRepositories", "mounted_repositories"]

_PATIENCE = 2.0
"""Seconds that a repository's server may take to report its status."""


class MountedRepositories(NamedTuple):
    """The status of those whose servers answer, and why others do not, by name."""

    statuses: list[Status]
    broken: dict[str, str]


def mounted_repositories(
    directory: Path, settings: Callable[[str], RepositorySettings]
) -> MountedRepositories:
    """Ask the server of each repository below ``directory``; ``settings`` says how one is configured."""
    found = MountedRepositories([], {})
    for mount in mounts_below(directory):
        name = Path(os.fsdecode(mount.mount_point)).name
        try:
            found.statuses.append(ask_status(settings(name).talk_socket, seconds=_PATIENCE))
        except ClientError as error:
            found.broken[name] = str(error)
    return found
