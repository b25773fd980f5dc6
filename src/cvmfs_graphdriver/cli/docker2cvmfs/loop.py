"""``docker2cvmfs loop``: convert every image of a recipe, again and again."""

import signal
import time
from pathlib import Path
from typing import NoReturn

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.cli.docker2cvmfs.recipes import RecipePass, recipe_argument
from cvmfs_graphdriver.cli.options import json_option
from cvmfs_graphdriver.errors import CvmfsGraphdriverError

__all__ = ["command"]


def _interrupt(number: int, frame: object) -> NoReturn:
    """End as on Ctrl-C, undoing what is unfinished."""
    del number, frame
    raise KeyboardInterrupt


@click.command("loop", short_help="Convert a recipe again and again.")
@recipe_argument
@click.option(
    "--pause", default=600.0, show_default=True, type=click.FloatRange(min=0), help="Seconds between rounds."
)
@publishing_options
@json_option
@click.pass_obj
def command(access: Access, recipe: Path, pause: float, *, as_json: bool, publishing: Publishing) -> None:
    """Convert RECIPE again and again, until interrupted.

    The file is reread in each round; whatever fails is retried in the next round.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    while True:
        try:
            RecipePass(access, publishing, recipe, as_json).run()
        except CvmfsGraphdriverError as error:
            click.echo(f"docker2cvmfs: {error}", err=True)
        time.sleep(pause)
