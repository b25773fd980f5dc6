"""Reporting what a conversion did, to people and to programs."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from cvmfs_graphdriver.conversion.batch import Outcome
from cvmfs_graphdriver.conversion.convert import Conversion
from cvmfs_graphdriver.conversion.errors import RecipeIncompleteError
from cvmfs_graphdriver.conversion.make_thin import MadeThin
from cvmfs_graphdriver.oci.image.model import ImageLayer

__all__ = ["tell_outcome", "tell_outcomes"]


def _bytes(layers: Iterable[ImageLayer]) -> int:
    return sum(layer.descriptor.size for layer in layers)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _tell(fqrn: str, conversion: Conversion, thin: MadeThin | None) -> None:
    """Report on standard error what was new, shared and saved, and what could not be preserved."""
    for note in conversion.notes:
        click.echo(f"docker2cvmfs: note: {note}", err=True)
    new, shared = conversion.new, conversion.shared
    click.echo(
        f"{fqrn} revision {conversion.revision}: {len(new)} new layers ({_mib(_bytes(new))} fetched, "
        f"{_mib(conversion.stored_bytes)} stored), {len(shared)} shared ({_mib(_bytes(shared))} saved), "
        f"{conversion.known_objects} objects known, {conversion.chain_records} new chain records"
        + (f"; the thin image was {'pushed' if thin.pushed else 'already there'}" if thin else ""),
        err=True,
    )


def _account_of(fqrn: str, conversion: Conversion, thin: MadeThin | None) -> dict[str, Any]:
    """The report for programs; sizes are in bytes."""
    return {
        "image": conversion.thin.origin,
        **({"thin_image": str(thin.reference), "pushed": thin.pushed} if thin else {}),
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
        "chain_records": conversion.chain_records,
        "notes": list(conversion.notes),
    }


def tell_outcome(fqrn: str, outcome: Outcome, *, as_json: bool) -> None:
    """Report the outcome for one of several images.

    On standard output: the name of its thin image, or its own if none was wanted; or JSON.
    """
    where = {"recipe": outcome.place} if outcome.place else {}
    if outcome.conversion is not None:
        account = {**where, "image": outcome.image}
        _tell_success(fqrn, outcome.conversion, outcome.thin, account if as_json else None)
    elif outcome.error is not None:
        place = f"{outcome.place}: " if outcome.place else ""
        click.echo(f"docker2cvmfs: {place}{outcome.image}: {outcome.error}", err=True)
        if as_json:
            failure = {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
            click.echo(json.dumps({**where, "image": outcome.image, **failure}))


def tell_outcomes(fqrn: str, outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Report the outcomes for the images of one command.

    Raises the error of a single image; RecipeIncompleteError: some of several failed.
    """
    if len(outcomes) == 1:
        (only,) = outcomes
        if only.conversion is None:
            raise only.error or AssertionError("an outcome has a conversion or an error")
        _tell_success(fqrn, only.conversion, only.thin, {} if as_json else None)
        return
    for outcome in outcomes:
        tell_outcome(fqrn, outcome, as_json=as_json)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        raise RecipeIncompleteError(f"{failed} of {len(outcomes)} images could not be converted, see above")


def _tell_success(
    fqrn: str, conversion: Conversion, thin: MadeThin | None, account: dict[str, Any] | None
) -> None:
    """``account`` is the beginning of the report for programs, None if people read it."""
    _tell(fqrn, conversion, thin)
    if account is not None:
        click.echo(json.dumps({**account, **_account_of(fqrn, conversion, thin)}))
    else:
        click.echo(str(thin.reference) if thin else conversion.thin.origin)
