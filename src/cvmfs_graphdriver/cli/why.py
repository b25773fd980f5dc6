"""``cvmfs-graphdriver why``: why the layers of an image or a container are lazy, or not."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.cli.snapshotter.options import configuration_option
from cvmfs_graphdriver.errors import printable
from cvmfs_graphdriver.planes.mounted import mounted_repositories
from cvmfs_graphdriver.snapshotter.administration.origins import LayerOrigin, origins_of
from cvmfs_graphdriver.snapshotter.configuration import SnapshotterConfiguration
from cvmfs_graphdriver.snapshotter.metadata import Metadata

__all__ = ["command"]


@click.command("why")
@click.argument("name", metavar="IMAGE|CONTAINER")
@configuration_option
@click.option(
    "--containerd",
    type=click.Path(path_type=Path),
    default=Path("/run/containerd/containerd.sock"),
    show_default=True,
    help="The socket of containerd, which knows images.",
)
@json_option
def command(name: str, file: Path, containerd: Path, *, as_json: bool) -> None:
    """Say of each layer, topmost first, whether it is lazy: from which repository, or why not.

    IMAGE is an image that containerd has in any of its namespaces, such as moby or k8s.io. CONTAINER is the
    ID of a container, or its first twelve digits. The chain ID of a layer, or the key of a snapshot, is
    understood as well.

    Example: cvmfs-graphdriver why registry.example.org/app:1
    """
    configuration = SnapshotterConfiguration.read(file)
    statuses = mounted_repositories(configuration.mounts, configuration.settings).statuses
    revisions = {status.fqrn: status.revision for status in statuses}
    with closing(Metadata(configuration.state / "metadata.db", reading=True)) as metadata:
        origins = origins_of(name, metadata, containerd, revisions)
    if as_json:
        click.echo(json.dumps([asdict(origin) for origin in origins], indent=2))
        return
    for origin in origins:
        click.echo(f"{printable(origin.chain)}  {printable(_sentence(origin))}")


def _sentence(origin: LayerOrigin) -> str:
    if not origin.lazy:
        return f"not lazy: {origin.why_not}"
    revision = f"revision {origin.revision}" if origin.revision else "which is not mounted now"
    place = f"{origin.repository} ({revision}), {origin.path}"
    return f"lazy, from {place}, found by {origin.found_by}"
