"""``cvmfs-graphdriver config check``: what is wrong, and how to fix it."""

import platform
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from cvmfs_graphdriver.cli.findings import show_findings
from cvmfs_graphdriver.cli.options import etc_option, json_option
from cvmfs_graphdriver.client.administration.checkup import Finding, Level, check_repository
from cvmfs_graphdriver.client.errors import ConfigurationError
from cvmfs_graphdriver.kernel.release import kernel_version

__all__ = ["command"]

_OLDEST = (5, 4)
_DATA_ONLY_LAYERS = (6, 5)


@click.command("check")
@click.argument("repository")
@etc_option
@json_option
def command(repository: str, etc: Path, *, as_json: bool) -> None:
    """Check everything that REPOSITORY needs: configuration, keys, cache, proxies, servers, clock, kernel.

    The exit status is 21 if an error makes the repository unusable.
    """
    found = chain(_check_kernel(), check_repository(repository, etc))
    errors = show_findings(found, as_json=as_json)
    if errors:
        raise ConfigurationError(f"{repository} cannot be used: {errors} error{'s' * (errors > 1)} above")


def _check_kernel() -> Iterator[Finding]:
    """What mounting requires of the kernel."""
    release, version = platform.release(), kernel_version()
    if version < _OLDEST:
        yield Finding(Level.ERROR, f"the kernel {release} is too old", "use Linux 5.4 or newer")
    elif version < _DATA_ONLY_LAYERS:
        yield Finding(Level.OK, f"the kernel {release} has no data-only layers: files are read through FUSE")
    else:
        yield Finding(Level.OK, f"the kernel {release} has all required features")
    if not Path("/dev/fuse").exists():
        yield Finding(Level.ERROR, "/dev/fuse does not exist", "modprobe fuse")
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    for name in ("fuse", "overlay"):
        if name not in known:
            yield Finding(
                Level.WARNING, f"the kernel has not loaded the file system {name}", f"modprobe {name}"
            )
