"""What commands that install share: their options, and carrying changes out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cvmfs_graphdriver.snapshotter.installation.change import FileChange
from cvmfs_graphdriver.snapshotter.installation.plan import Host, HostEngine

__all__ = [
    "NAME",
    "SOCKET",
    "STATE",
    "carry_out",
    "engine_option",
    "installation_options",
    "node_options",
    "runtime_options",
]

NAME = "cvmfs-snapshotter"
SOCKET = "/run/cvmfs-snapshotter/snapshotter.sock"
STATE = "/var/lib/cvmfs-snapshotter"
Function = TypeVar("Function", bound=Callable[..., Any])


engine_option = click.option(
    "--engine",
    type=click.Choice([engine.value for engine in HostEngine]),
    required=True,
    help="The engine: docker (28 or later), containerd (with Kubernetes), or k3s.",
)


def installation_options(function: Function) -> Function:
    """--engine, --root and --dry-run; passed as ``engine``, ``root`` and ``dry_run``."""
    for option in (
        click.option("-n", "--dry-run", is_flag=True, help="Show the changes, and make none."),
        click.option(
            "--root",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            default=Path("/"),
            metavar="DIR",
            help="The root directory of the host (default: /).",
        ),
        engine_option,
    ):
        function = option(function)
    return function


def node_options(function: Function) -> Function:
    """--root and --no-start of commands that run in a container; passed as ``root`` and ``start``."""
    for option in (
        click.option(
            "--no-start",
            "start",
            flag_value=False,
            default=True,
            help="Write files only: no service is started, stopped or restarted.",
        ),
        click.option(
            "--root",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            default=Path("/host"),
            show_default=True,
            metavar="DIR",
            help="Where the root directory of the host is mounted.",
        ),
    ):
        function = option(function)
    return function


def runtime_options(function: Function) -> Function:
    """--runtime-class and --remap-ids; passed as ``runtime_class`` and ``remap_ids``."""
    for option in (
        click.option(
            "--remap-ids", is_flag=True, help="Announce that mounts can be mapped for user namespaces."
        ),
        click.option(
            "--runtime-class",
            default="",
            metavar="NAME",
            help="Only pods of this RuntimeClass use it (default: every pod; only for --engine containerd).",
        ),
    ):
        function = option(function)
    return function


def carry_out(changes: list[FileChange], *, dry_run: bool, host: Host, back: bool, engine: str) -> None:
    """Show all changes, then make them unless it is a dry run; say what the administrator does next."""
    needed = [change for change in changes if change.needed]
    for change in needed:
        click.echo(change.difference(), nl=False)
    if not needed:
        click.echo("Nothing to change.", err=True)
        return
    if dry_run:
        return
    for change in changes:
        if back:
            change.take_back()
        elif change.needed:
            change.install()
    where = "" if host.root == Path("/") else f"On the host below {host.root}: "
    if back:
        following = (
            f"systemctl disable --now {NAME}; systemctl daemon-reload; systemctl restart {_units(engine)}"
        )
    else:
        following = (
            f"systemctl daemon-reload; systemctl enable --now {NAME}; systemctl restart {_units(engine)}"
        )
    click.echo(f"{where}Now run: {following}", err=True)


def _units(engine: str) -> str:
    return "containerd docker" if engine == "docker" else engine
