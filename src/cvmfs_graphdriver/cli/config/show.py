"""``cvmfs-graphdriver config show``: the configuration, with the file and line of each value."""

import json
from pathlib import Path

import click

from cvmfs_graphdriver.cli.options import etc_option, json_option
from cvmfs_graphdriver.client.config_repository import kept_config_repository
from cvmfs_graphdriver.client.configuration.parameters import PARAMETERS
from cvmfs_graphdriver.client.configuration.search import load_configuration
from cvmfs_graphdriver.shell.environment import Setting

__all__ = ["command"]


@click.command("show")
@click.argument("repository")
@click.option("--all", "everything", is_flag=True, help="Also show parameters that have their default value.")
@etc_option
@json_option
def command(repository: str, etc: Path, *, everything: bool, as_json: bool) -> None:
    """Print the configuration of REPOSITORY, with the file and line that set each value.

    What a configuration repository sets and must not set is said on standard error.

    Example: cvmfs-graphdriver config show unpacked.cern.ch
    """
    configuration = load_configuration(repository, etc, {}, kept_config_repository(etc, {}))
    for ignored in configuration.ignored:
        click.echo(f"warning: {ignored}", err=True)
    names = sorted({*configuration, *(PARAMETERS if everything or as_json else ())})
    rows = []
    for name in names:
        parameter = PARAMETERS.get(name)
        setting = configuration.get(name) or Setting(parameter.default if parameter else "", "default")
        rows.append((name, setting, parameter.meaning if parameter else ""))
    if as_json:
        values = {
            name: {"value": setting.value, "file": setting.file, "line": setting.line, "meaning": meaning}
            for name, setting, meaning in rows
        }
        click.echo(json.dumps(values, indent=2))
        return
    for name, setting, _ in rows:
        export = "export " if name in configuration.exported else ""
        click.echo(f"{export}{name}={_quoted(setting.value)}    # {setting.origin}")


def _quoted(value: str) -> str:
    """``value`` quoted for a shell."""
    if value and all(char.isalnum() or char in "_-+./:@%," for char in value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"
