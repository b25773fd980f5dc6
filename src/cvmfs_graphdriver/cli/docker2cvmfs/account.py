"""What a conversion did, for people and for programs."""

from collections.abc import Iterable
from typing import Any

import click

from cvmfs_graphdriver.conversion.make_thin import MadeThin
from cvmfs_graphdriver.oci.model import Layer

__all__ = ["as_json", "tell"]


def _bytes(layers: Iterable[Layer]) -> int:
    return sum(layer.descriptor.size for layer in layers)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def tell(fqrn: str, made: MadeThin) -> None:
    """Say on standard error what was new, what was shared, what was saved, and what could not be kept."""
    conversion = made.conversion
    for note in conversion.notes:
        click.echo(f"docker2cvmfs: note: {note}", err=True)
    new, shared = conversion.new, conversion.shared
    click.echo(
        f"{fqrn} revision {conversion.revision}: {len(new)} new layers ({_mib(_bytes(new))} fetched, "
        f"{_mib(conversion.stored_bytes)} stored), {len(shared)} shared ({_mib(_bytes(shared))} saved), "
        f"{conversion.known_objects} objects were known; "
        f"the thin image was {'pushed' if made.pushed else 'there already'}",
        err=True,
    )


def as_json(fqrn: str, made: MadeThin) -> dict[str, Any]:
    """The same for programs; sizes in bytes."""
    conversion = made.conversion
    return {
        "image": conversion.thin.origin,
        "thin_image": str(made.reference),
        "pushed": made.pushed,
        "repository": fqrn,
        "revision": conversion.revision,
        "layers": [
            {"digest": str(layer.digest), "url": layer.location.url} for layer in conversion.thin.layers
        ],
        "new_layers": len(conversion.new),
        "shared_layers": len(conversion.shared),
        "fetched_bytes": _bytes(conversion.new),
        "saved_bytes": _bytes(conversion.shared),
        "stored_bytes": conversion.stored_bytes,
        "known_objects": conversion.known_objects,
        "notes": list(conversion.notes),
    }
