"""``cvmfs-graphdriver talk``: send a command to the client of a mounted repository."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option
from cvmfs_graphdriver.client.administration.talk_socket import ask
from cvmfs_graphdriver.client.config_repository import load_settings
from cvmfs_graphdriver.client.errors import TalkError

__all__ = ["command"]


@click.command("talk", context_settings={"ignore_unknown_options": True})
@click.argument("repository")
@click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The talk socket, if it differs from the configuration.",
)
@etc_option
def command(repository: str, words: tuple[str, ...], socket: Path | None, etc: Path) -> None:
    """Send COMMAND to the client of REPOSITORY and print the answer, as cvmfs_talk does.

    Commands: cache size, cache list [pinned|catalogs], cache limit get|set MB, cleanup MB, evict PATH,
    pin PATH, mountpoint, remount [past caches], revision, max ttl info|set MINUTES,
    [external] host info|switch|set LIST, host probe geo,
    [external] proxy info|set LIST|fallback LIST|rebalance|group switch, timeout info|set P D,
    open catalogs, internal affairs, reset error counters, pid, parameters, version, latency,
    metrics prometheus, status json.

    Example: cvmfs-graphdriver talk unpacked.cern.ch proxy info
    """
    path = socket or load_settings(repository, etc).talk_socket
    answer = ask(path, " ".join(words))
    if answer.startswith("Failed"):
        raise TalkError(answer.strip())
    if answer.startswith("unknown command"):
        raise click.UsageError(f"the client does not know the command {' '.join(words)!r}")
    click.echo(answer, nl=False)
