"""``cvmfs-graphdriver mount``: mount a repository, without Docker."""

from collections.abc import Iterable
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.planes.errors import ServerError
from cvmfs_graphdriver.planes.service.request import MountRequest
from cvmfs_graphdriver.planes.service.spawn import spawn

__all__ = ["command", "mount_request"]

_IGNORED = frozenset(
    {
        *("_netdev", "auto", "noauto", "user", "users", "nouser", "system_mount", "grab_mountpoint"),
        *("defaults", "ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noatime", "relatime"),
        *("allow_other", "default_permissions"),
    }
)
"""Options of fstab that are accepted and have no effect, because they always or never apply."""


@click.command("mount")
@click.argument("repository")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTION[,…]",
    help="As in fstab: cvmfs_suid (honour setuid bits), whiteouts (present layers as overlayfs expects), "
    "NAME=VALUE (a parameter; takes precedence over configuration files).",
)
@etc_option
@click.option(
    "-f",
    "--foreground",
    is_flag=True,
    help="Stay in the foreground; unmount on Ctrl-C.",
)
@click.pass_context
def command(
    context: click.Context,
    repository: str,
    directory: Path,
    options: tuple[str, ...],
    etc: Path,
    *,
    foreground: bool,
) -> None:
    """Mount REPOSITORY read-only at DIRECTORY.

    Files are fetched and verified when they are first read, and kept in the cache. The repository stays
    mounted until it is unmounted with cvmfs-graphdriver umount DIRECTORY; new revisions appear by themselves.

    Example: cvmfs-graphdriver mount unpacked.cern.ch /cvmfs/unpacked.cern.ch
    """
    request = mount_request(repository, directory.absolute(), options, etc.absolute())
    try:
        _mount(request, foreground=foreground)
    except ServerError as error:
        click.echo(f"cvmfs-graphdriver: {error}", err=True)
        context.exit(error.reason_code)


def _mount(request: MountRequest, *, foreground: bool) -> None:
    message = f"{request.fqrn} is mounted at {request.target}"
    if not foreground:
        spawn(request)
        click.echo(message, err=True)
        return
    import logging

    from cvmfs_graphdriver.kernel.logline import log_to_terminal
    from cvmfs_graphdriver.planes.service.keeper import keep

    log_to_terminal("%(message)s", logging.INFO)
    keep(request, lambda: click.echo(message, err=True))


def mount_request(
    repository: str, target: Path, options: Iterable[str], etc: Path, *, sloppy: bool = False
) -> MountRequest:
    """The mount that the options of a command line or of fstab ask for.

    Raises click.UsageError: an option is unknown, unless ``sloppy``.
    """
    overrides = {}
    flags = set()
    for option in (part for text in options for part in text.split(",") if part):
        name, equals, value = option.partition("=")
        if equals and name.isupper():
            overrides[name] = value
        elif option in {"cvmfs_suid", "whiteouts"}:
            flags.add(option)
        elif option not in _IGNORED and name != "fsname" and not sloppy:
            raise click.UsageError(f"unknown option -o {option}")
    return MountRequest(
        repository,
        target,
        etc=etc,
        overrides=overrides,
        whiteouts="whiteouts" in flags,
        suid="cvmfs_suid" in flags,
    )
