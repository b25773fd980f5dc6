"""The command ``docker2cvmfs``: the table of its subcommands, and the options for registry access."""

from pathlib import Path
from typing import NoReturn

import click

from cvmfs_graphdriver import __version__
from cvmfs_graphdriver.cli.docker2cvmfs.access import Access, RegistryAddress, password_from_stdin
from cvmfs_graphdriver.cli.entry import LazyGroup, run

__all__ = ["command", "main"]

_HERE = "cvmfs_graphdriver.cli.docker2cvmfs"


@click.group(
    cls=LazyGroup,
    commands_at={
        "make-thin": f"{_HERE}.make_thin:command",
        "publish": f"{_HERE}.publish:command",
        "index": f"{_HERE}.index:command",
        "pull": f"{_HERE}.pull:command",
        "thin": f"{_HERE}.thin:command",
        "manifest": f"{_HERE}.manifest:command",
        "config": f"{_HERE}.config:command",
        "convert": f"{_HERE}.convert:command",
        "loop": f"{_HERE}.loop:command",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--registry",
    metavar="URL",
    help="The registry of images that do not name one (default: Docker Hub), e.g. https://registry.example.org.",
)
@click.option("--mirror", metavar="URL", multiple=True, help="A mirror to read from first; may be repeated.")
@click.option("--username", metavar="NAME", help="The user name for --registry, instead of docker login's.")
@click.option("--password-stdin", is_flag=True, help="Read the password of --username from standard input.")
@click.option(
    "--docker-config",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where docker login left its credentials (default: $DOCKER_CONFIG or ~/.docker).",
)
@click.option(
    "--ca-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also trust these certificate authorities.",
)
@click.option(
    "--insecure-registry",
    metavar="HOST",
    multiple=True,
    help="Accept this registry without TLS or a valid certificate; may be repeated (localhost may lack TLS).",
)
@click.option(
    "--allow-private-redirects",
    is_flag=True,
    help="Let registries lead to private and loopback addresses although their own are public.",
)
@click.version_option(__version__)
@click.pass_context
def command(
    context: click.Context,
    registry: str | None,
    mirror: tuple[str, ...],
    username: str | None,
    *,
    password_stdin: bool,
    docker_config: Path | None,
    ca_file: Path | None,
    insecure_registry: tuple[str, ...],
    allow_private_redirects: bool,
) -> None:
    """Put container images into CernVM-FS and make thin images of them.

    IMAGE is [HOST[:PORT]/]NAME[:TAG][@DIGEST] as for docker, oci:DIR[:TAG] for an image layout, or
    docker-archive:FILE[:NAME:TAG] for the output of docker save. Results go to standard output, messages to
    standard error.
    """
    if (username is None) == password_stdin:
        raise click.UsageError("--username and --password-stdin must be used together")
    if username is not None and registry is None:
        raise click.UsageError("--username requires --registry, for which the password is")
    access = Access(
        address=RegistryAddress.parse(registry) if registry else RegistryAddress(),
        mirrors=[RegistryAddress.parse(text) for text in mirror],
        login=(username, password_from_stdin()) if username is not None else None,
        docker_config=docker_config,
        ca_file=ca_file,
        insecure_hosts=frozenset(insecure_registry),
        allow_private_redirects=allow_private_redirects,
    )
    context.obj = access
    context.call_on_close(access.close)


def main() -> NoReturn:
    """Entry point of the program."""
    run(command, "docker2cvmfs")
