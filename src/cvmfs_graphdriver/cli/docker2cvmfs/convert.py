"""``docker2cvmfs convert``: convert every image of a recipe."""

from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing, publishing_options
from cvmfs_graphdriver.cli.docker2cvmfs.recipes import RecipePass, recipe_argument
from cvmfs_graphdriver.cli.options import json_option

__all__ = ["command"]


@click.command("convert", short_help="Make thin images of all images in a recipe.")
@recipe_argument
@publishing_options
@json_option
@click.pass_obj
def command(access: Access, recipe: Path, *, as_json: bool, publishing: Publishing) -> None:
    """Make thin images of all images that RECIPE lists, as make-thin does for one.

    RECIPE is a YAML file in DUCC's format: version, cvmfs_repo, output_format, input. With thin_images: false
    in it, images are stored as publish does, without thin images. Images that are up to date are skipped, and
    a failed image does not stop the others. Prints a line for each image.
    """
    RecipePass(access, publishing, recipe, as_json).run()
