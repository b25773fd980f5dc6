"""Options that commands of the snapshotter share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["configuration_option"]

Function = TypeVar("Function", bound=Callable[..., Any])


def configuration_option(function: Function) -> Function:
    """``--config``: the snapshotter's configuration file; passed as ``file``."""
    option = click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("/etc/cvmfs-snapshotter/config.toml"),
        show_default=True,
        help="The configuration file (docs/snapshotter.md).",
    )
    return option(function)
