"""The frame of every command: lazily loaded subcommands, one line per error, exit statuses.

Owns: the group class and the mapping from errors to exit statuses (docs/errors.md). Must not know: any
command. Standard output is for data; messages, progress and errors go to standard error.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.kernel.memory.garbage import look_for_garbage_seldom

__all__ = ["LazyGroup", "run"]


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are used.

    ``commands_at`` locates them: ``{"mount": "cvmfs_graphdriver.cli.mount:command"}``.
    """

    def __init__(self, *args: object, commands_at: Mapping[str, str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._commands_at = dict(commands_at)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        del ctx
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is no such command."""
        del ctx
        where = self._commands_at.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{where} is not a command")
        return command


def run(command: click.Command, program: str) -> NoReturn:
    """Run ``command`` as the main function of ``program``; our errors become one line and an exit status."""
    look_for_garbage_seldom()
    try:
        status = command.main(prog_name=program, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(f"{program}: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CvmfsGraphdriverError as error:
        click.echo(f"{program}: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)
