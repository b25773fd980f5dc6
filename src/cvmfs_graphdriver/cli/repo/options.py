"""What the commands of ``repo`` share: the repository, its storage and its keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cvmfs_graphdriver.cli.options import keys_option, storage_option
from cvmfs_graphdriver.publisher.repository import Repository
from cvmfs_graphdriver.publisher.server_settings import load_server_settings
from cvmfs_graphdriver.publisher.stock_server import StockServer
from cvmfs_graphdriver.publisher.storage.upstream import storage_at

__all__ = ["open_repository", "repository_keys", "repository_options", "wait_option"]

_Command = Callable[..., Any]

fqrn_argument = click.argument("fqrn", metavar="REPO")
repository_keys = keys_option("Where its keys are.")
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for another publisher (default: fail at once).",
)


def repository_options(command: _Command) -> _Command:
    """REPO, --storage and --keys."""
    return fqrn_argument(storage_option(repository_keys(command)))


def open_repository(
    fqrn: str, storage: Path | None, keys: Path, settings: Path | None = None, *, warn: bool = True
) -> Repository:
    """The repository that the options name; ``warn`` if clients refuse its whitelist, or will soon.

    Raises PublisherError, TrustError.
    """
    options = load_server_settings(settings) if settings else None
    repository = Repository.open(fqrn, storage_at(storage, fqrn), keys, options)
    if settings is not None:
        repository.stock = StockServer.load(settings, fqrn)
        click.get_current_context().call_on_close(lambda: _tell_of_mount(repository))
    if warn and (problem := repository.whitelist_problem()):
        program = click.get_current_context().find_root().info_name
        click.echo(f"{program}: warning: {problem}", err=True)
    return repository


def _tell_of_mount(repository: Repository) -> None:
    if repository.stock is not None and repository.stock.outdated(repository.manifest().root):
        click.echo(
            f"cvmfs-graphdriver: note: cvmfs_server has an older revision of {repository.fqrn} mounted: "
            "its next transaction mounts the new one if server.conf says CVMFS_AUTO_REPAIR_MOUNTPOINT=true, "
            f"otherwise run: cvmfs_server mount {repository.fqrn}",
            err=True,
        )
