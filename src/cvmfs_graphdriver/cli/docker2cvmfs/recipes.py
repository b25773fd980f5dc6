"""What ``convert`` and ``loop`` share: one pass over a recipe, told line by line.

Owns: the way from the command line to a batch. Must not know: how often.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import as_json as account_of
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing
from cvmfs_graphdriver.conversion.batch import Batch, Outcome
from cvmfs_graphdriver.conversion.errors import RecipeError, RecipeIncompleteError
from cvmfs_graphdriver.conversion.recipe import Recipe
from cvmfs_graphdriver.oci.registry import Registry

__all__ = ["RecipePass", "recipe_argument"]

_PASSWORD = "DUCC_OUTPUT_REGISTRY_PASS"  # noqa: S105 - the variable's name, as release managers know it

recipe_argument = click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path, dir_okay=False))


@dataclass(frozen=True, slots=True)
class RecipePass:
    """One way through a recipe."""

    access: Access
    publishing: Publishing
    file: Path
    as_json: bool

    def run(self) -> None:
        """Convert all its images; each is told of when it is done.

        Raises RecipeError: the recipe cannot be read. RecipeIncompleteError: some images failed.
        PublisherError, KeyringError: the repository cannot be published to.
        """
        recipe = self._read()
        failed = total = 0
        repository = self.publishing.open(recipe.repository)
        with watch() as progress:
            batch = Batch(
                source_registry=self.access.registry,
                target_registry=lambda host: self._target(recipe, host),
                repository=repository,
                layout=self.publishing.layout,
                progress=progress,
                platform=self.publishing.platform,
                form=self.publishing.form,
            )
            for outcome in batch.run(recipe):
                self._tell(recipe, outcome)
                total += 1
                failed += outcome.error is not None
        if failed:
            raise RecipeIncompleteError(
                f"{failed} of {total} images of {self.file} could not be converted, as told above; "
                "run it again, what is done is not done twice"
            )

    def _read(self) -> Recipe:
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise RecipeError(f"{self.file}:1: cannot be read: {error.strerror}") from error
        return Recipe.parse(str(self.file), data)

    def _target(self, recipe: Recipe, host: str) -> Registry:
        password = os.environ.get(_PASSWORD)
        login = (recipe.user, password) if recipe.user and password is not None else None
        return self.access.registry(host, login)

    def _tell(self, recipe: Recipe, outcome: Outcome) -> None:
        where = {"recipe": outcome.place, "image": outcome.image}
        if outcome.made is not None:
            tell(recipe.repository, outcome.made)
            account = {**where, **account_of(recipe.repository, outcome.made)}
            click.echo(json.dumps(account) if self.as_json else str(outcome.made.reference))
        elif outcome.error is not None:
            click.echo(f"docker2cvmfs: {outcome.place}: {outcome.image}: {outcome.error}", err=True)
            if self.as_json:
                failure = {"error": str(outcome.error), "exit_code": outcome.error.exit_code}
                click.echo(json.dumps({**where, **failure}))
