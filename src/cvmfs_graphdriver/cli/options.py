"""Options that several commands share.

Owns: their names and help. Must not know: any command.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["etc_option", "json_option", "keys_option", "settings_option", "storage_option"]

Function = TypeVar("Function", bound=Callable[..., Any])


def etc_option(function: Function) -> Function:
    """``--config``: the directory of the configuration; passed as ``etc``."""
    option = click.option(
        "--config",
        "etc",
        type=click.Path(path_type=Path),
        default=Path("/etc/cvmfs"),
        show_default=True,
        help="The directory that contains the configuration.",
    )
    return option(function)


def json_option(function: Function) -> Function:
    """``--json``: output for programs; passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def keys_option(help_text: str) -> Callable[[Function], Function]:
    """``--keys``: the directory of a repository's keys; passed as ``keys``."""
    return click.option(
        "--keys",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        default=Path("/etc/cvmfs/keys"),
        show_default=True,
        help=help_text,
    )


storage_option = click.option(
    "--storage",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="The repository's storage: a directory (default: /srv/cvmfs/REPO), or a file with CVMFS_S3_* "
    "parameters.",
)

settings_option = click.option(
    "--server-conf",
    "settings",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The stock server's server.conf, if cvmfs_server publishes to the repository as well: store content "
    "as it would (default: as images require), and keep its locks and its reflog checksum.",
)
