"""``cvmfs-graphdriver repo check``: verify a repository from the signature to each byte."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.cli.repo.options import repository_options
from cvmfs_graphdriver.publisher.care.check import RepositoryCheck
from cvmfs_graphdriver.publisher.errors import DamagedRepositoryError
from cvmfs_graphdriver.publisher.keyring import load_master_public_keys
from cvmfs_graphdriver.publisher.storage.upstream import storage_at

__all__ = ["command"]


@click.command("check")
@repository_options
@click.option(
    "--no-contents", is_flag=True, help="Only check that files' objects exist, without reading them."
)
@json_option
def command(fqrn: str, storage: Path | None, keys: Path, *, no_contents: bool, as_json: bool) -> None:
    """Verify signatures, catalogs, counters and every object of REPO, including tagged revisions.

    Needs only the public key. Prints one line per problem; if there are any, the exit status is 46.
    """
    check = RepositoryCheck(
        storage_at(storage, fqrn),
        fqrn,
        load_master_public_keys(fqrn, keys),
        now=datetime.now(UTC),
        contents=not no_contents,
    )
    findings = []
    for finding in check.run():
        findings.append(finding)
        if not as_json:
            click.echo(finding)
    if as_json:
        account = {"catalogs": check.catalogs, "objects": check.objects, "bytes": check.bytes}
        click.echo(json.dumps({**account, "findings": findings, "warnings": check.warnings}))
    for warning in check.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"{fqrn}: {check.catalogs} catalogs, {check.objects} objects, {check.bytes / (1 << 20):.1f} MiB read",
        err=True,
    )
    if findings:
        raise DamagedRepositoryError(f"{fqrn} is damaged: {len(findings)} problems found")
