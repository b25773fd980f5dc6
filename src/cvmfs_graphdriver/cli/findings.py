"""How commands show what checks have found.

Owns: the form, for people and for programs. Must not know: what is checked.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict

import click

from cvmfs_graphdriver.client.administration.checkup import Finding, Level
from cvmfs_graphdriver.errors import printable

__all__ = ["show_findings"]

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def show_findings(found: Iterable[Finding], *, as_json: bool) -> int:
    """Print findings, people's as they are made; returns how many are errors."""
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    return sum(finding.level is Level.ERROR for finding in findings)


def _print(finding: Finding) -> None:
    remedy = f" - {finding.remedy}" if finding.remedy else ""
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(level + printable(finding.what + remedy))
