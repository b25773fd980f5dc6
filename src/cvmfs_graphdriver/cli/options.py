"""Options that several commands have in common.

Owns: their names and their help. Must not know: any command.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["etc_option", "json_option", "settings_option", "storage_option"]

Function = TypeVar("Function", bound=Callable[..., Any])


def etc_option(function: Function) -> Function:
    """``--config``: where the configuration is; the argument ``etc``."""
    option = click.option(
        "--config",
        "etc",
        type=click.Path(path_type=Path),
        default=Path("/etc/cvmfs"),
        show_default=True,
        help="Where the configuration is.",
    )
    return option(function)


def json_option(function: Function) -> Function:
    """``--json``: output for programs; the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


storage_option = click.option(
    "--storage",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="Where the repository's objects are: a directory (default: /srv/cvmfs/REPO), or in S3 as a file of "
    "CVMFS_S3_* says.",
)

settings_option = click.option(
    "--server-conf",
    "settings",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The stock server's server.conf, where cvmfs_server publishes to the repository, too: store content "
    "as it would (default: as images need it), and keep its locks and its reflog checksum.",
)
