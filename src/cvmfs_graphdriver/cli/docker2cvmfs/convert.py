"""``docker2cvmfs convert``: every image of a recipe."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.options import json_option
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.cli.docker2cvmfs.recipes import RecipePass, recipe_argument

__all__ = ["command"]


@click.command("convert", short_help="Make thin images of all images of a recipe.")
@recipe_argument
@publishing_options
@json_option
@click.pass_obj
def command(access: Access, recipe: Path, *, as_json: bool, publishing: Publishing) -> None:
    """Make thin images of all images that RECIPE lists, as make-thin does of one.

    RECIPE is a YAML file as DUCC's: version, cvmfs_repo, output_format, input. Images that are done are not
    done again, and one that cannot be converted does not stop the others. Prints a line for each.
    """
    RecipePass(access, publishing, recipe, as_json).run()
