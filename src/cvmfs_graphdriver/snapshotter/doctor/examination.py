"""All checks, in the order in which an administrator would make them.

Owns: that order. Must not know: how findings are presented.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from cvmfs_graphdriver.client.administration.checkup import Finding, Level, check_repository
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.doctor.engines import check_engines
from cvmfs_graphdriver.snapshotter.doctor.host import check_kernel, check_process, check_state, check_unit
from cvmfs_graphdriver.snapshotter.errors import SnapshotterConfigurationError

__all__ = ["examine"]

_ROOT = Path("/")


def examine(file: Path) -> Iterator[Finding]:
    """Check everything that the snapshotter with this configuration file needs."""
    if os.geteuid() != 0:
        yield Finding(Level.ERROR, "only root can check everything", "run it as root")
        return
    try:
        configuration = SnapshotterConfiguration.read(file)
    except SnapshotterConfigurationError as error:
        yield Finding(Level.ERROR, str(error), "docs/snapshotter.md describes every key")
        return
    yield Finding(Level.OK, f"{file} has no mistakes")
    yield from check_kernel(configuration)
    yield from check_state(configuration)
    yield from check_unit(_ROOT)
    yield from check_process(configuration)
    yield from check_engines(configuration, _ROOT)
    if not configuration.repositories:
        yield Finding(
            Level.ERROR, "no repositories are configured: no image is lazy", f"set repositories in {file}"
        )
    for fqrn in configuration.repositories:
        yield from check_repository(fqrn, configuration.cvmfs_config, configuration.overrides)
