"""Reporting what a conversion did, to people and to programs."""

import json
from collections.abc import Iterable
from typing import Any

import click

from cvmfs_graphdriver.conversion.batch import Outcome
from cvmfs_graphdriver.conversion.make_thin import MadeThin
from cvmfs_graphdriver.oci.image.model import ImageLayer

__all__ = ["account_of", "tell", "tell_outcome"]


def _bytes(layers: Iterable[ImageLayer]) -> int:
    return sum(layer.descriptor.size for layer in layers)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def tell(fqrn: str, made: MadeThin) -> None:
    """Report on standard error what was new, shared and saved, and what could not be preserved."""
    conversion = made.conversion
    for note in conversion.notes:
        click.echo(f"docker2cvmfs: note: {note}", err=True)
    new, shared = conversion.new, conversion.shared
    click.echo(
        f"{fqrn} revision {conversion.revision}: {len(new)} new layers ({_mib(_bytes(new))} fetched, "
        f"{_mib(conversion.stored_bytes)} stored), {len(shared)} shared ({_mib(_bytes(shared))} saved), "
        f"{conversion.known_objects} objects known; "
        f"the thin image was {'pushed' if made.pushed else 'already there'}",
        err=True,
    )


def account_of(fqrn: str, made: MadeThin) -> dict[str, Any]:
    """The report for programs; sizes are in bytes."""
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


def tell_outcome(fqrn: str, outcome: Outcome, *, as_json: bool) -> None:
    """Report the outcome for one of several images: its thin image, or JSON on standard output."""
    where = {"recipe": outcome.place} if outcome.place else {}
    if outcome.made is not None:
        tell(fqrn, outcome.made)
        account = {**where, "image": outcome.image, **account_of(fqrn, outcome.made)}
        click.echo(json.dumps(account) if as_json else str(outcome.made.reference))
    elif outcome.error is not None:
        place = f"{outcome.place}: " if outcome.place else ""
        click.echo(f"docker2cvmfs: {place}{outcome.image}: {outcome.error}", err=True)
        if as_json:
            failure = {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
            click.echo(json.dumps({**where, "image": outcome.image, **failure}))
