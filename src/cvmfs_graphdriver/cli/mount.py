"""``cvmfs-graphdriver mount``: a repository as a directory, without Docker."""

from collections.abc import Iterable
from pathlib import Path

import click

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
"""What an fstab line may contain and what is so, or cannot be otherwise, all the same."""


@click.command("mount")
@click.argument("repository")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTION[,…]",
    help="As in fstab: cvmfs_suid (setuid bits count), whiteouts (show layers as overlayfs wants them), "
    "NAME=VALUE (a parameter, over every configuration file).",
)
@click.option(
    "--config",
    "etc",
    type=click.Path(path_type=Path),
    default=Path("/etc/cvmfs"),
    show_default=True,
    help="Where the configuration is.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay, log to standard error, unmount on Ctrl-C.")
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
    """Mount REPOSITORY, read-only, at DIRECTORY.

    Files are fetched when they are first read, verified, and kept in the cache. It stays mounted until it is
    unmounted (cvmfs-graphdriver umount DIRECTORY); a new revision appears when the repository has one.

    Example: cvmfs-graphdriver mount unpacked.cern.ch /cvmfs/unpacked.cern.ch
    """
    request = mount_request(repository, directory.absolute(), options, etc.absolute())
    try:
        _mount(request, foreground=foreground)
    except ServerError as error:
        click.echo(f"cvmfs-graphdriver: {error}", err=True)
        context.exit(error.reason_code)


def _mount(request: MountRequest, *, foreground: bool) -> None:
    said = f"{request.fqrn} is mounted at {request.target}"
    if not foreground:
        spawn(request)
        click.echo(said, err=True)
        return
    import logging

    from cvmfs_graphdriver.planes.service.keeper import keep

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep(request, lambda: click.echo(said, err=True))


def mount_request(
    repository: str, target: Path, options: Iterable[str], etc: Path, *, sloppy: bool = False
) -> MountRequest:
    """What the options of a command line or of fstab ask for.

    Raises click.UsageError: one is unknown, unless ``sloppy``.
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
