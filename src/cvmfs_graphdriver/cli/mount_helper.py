"""``mount.cvmfs``: the helper that mount(8) calls for file systems of type cvmfs.

Owns: the command line and the exit statuses that mount(8) specifies ("External helpers" and "Exit status").
Linked into /sbin, it makes ``mount -t cvmfs REPO DIRECTORY`` and lines in fstab work.
"""

import sys
from pathlib import Path

import click

from cvmfs_graphdriver.cli.mount import mount_request
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["command", "main"]

_WRONG_USE, _MOUNT_FAILED = 1, 32


@click.command("mount.cvmfs")
@click.argument("repository")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "options", multiple=True, metavar="OPTION[,…]", help="As for cvmfs-graphdriver mount.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check the options without mounting.")
@click.option("-v", "verbose", is_flag=True, help="Report what was mounted.")
@click.option("-n", is_flag=True, expose_value=False, hidden=True)
@click.option("-t", expose_value=False, hidden=True)
def command(
    repository: str, directory: Path, options: tuple[str, ...], *, sloppy: bool, fake: bool, verbose: bool
) -> None:
    """Mount REPOSITORY at DIRECTORY on behalf of mount(8)."""
    from cvmfs_graphdriver.planes.service.spawn import spawn

    etc = Path("/etc/cvmfs")
    request = mount_request(repository, directory.absolute(), options, etc, sloppy=sloppy)
    if not fake:
        spawn(request)
    if verbose:
        click.echo(f"{request.fqrn} is mounted at {request.target}")


def main() -> None:
    """The entry point of the program."""
    try:
        command(prog_name="mount.cvmfs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(_WRONG_USE)
    except CvmfsGraphdriverError as error:
        click.echo(f"mount.cvmfs: {error}", err=True)
        sys.exit(_MOUNT_FAILED)
