"""``cvmfs-graphdriver snapshotter``: the table of commands for containerd's snapshotter."""

import click

from cvmfs_graphdriver.cli.entry import LazyGroup

__all__ = ["command"]

_HERE = "cvmfs_graphdriver.cli.snapshotter"


@click.group(
    "snapshotter",
    cls=LazyGroup,
    commands_at={
        "config": f"{_HERE}.config:command",
        "doctor": f"{_HERE}.doctor:command",
        "install": f"{_HERE}.install:command",
        "serve": f"{_HERE}.serve:command",
        "status": f"{_HERE}.status:command",
        "node-install": f"{_HERE}.node_install:command",
        "node-uninstall": f"{_HERE}.node_uninstall:command",
        "node-wait": f"{_HERE}.node_wait:command",
        "uninstall": f"{_HERE}.uninstall:command",
    },
)
def command() -> None:
    """Start unmodified images lazily on containerd, Docker 26 and later, and Kubernetes."""
