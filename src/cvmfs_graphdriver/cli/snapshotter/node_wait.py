"""``cvmfs-graphdriver snapshotter node-wait``: the container that stays on a node when all is done."""

import signal

import click

__all__ = ["command"]


@click.command("node-wait")
def command() -> None:
    """Do nothing until SIGTERM, since Kubernetes wants a container that stays."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
