"""What ``convert`` and ``loop`` share: one pass over a recipe, reported line by line.

Owns: turning a recipe into a batch, with the images that it currently stands for. Must not know: how often it
runs.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from cvmfs_graphdriver.cli.docker2cvmfs.access import Access
from cvmfs_graphdriver.cli.docker2cvmfs.account import tell_outcome
from cvmfs_graphdriver.cli.docker2cvmfs.progress import watch
from cvmfs_graphdriver.cli.docker2cvmfs.publishing import Publishing
from cvmfs_graphdriver.conversion.batch import Batch, ConversionRequest, Outcome
from cvmfs_graphdriver.conversion.errors import RecipeError, RecipeIncompleteError
from cvmfs_graphdriver.conversion.layout import UnpackedLayout
from cvmfs_graphdriver.conversion.make_thin import ThinTarget
from cvmfs_graphdriver.conversion.recipe import Recipe, RecipeInput
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.image.reference import ImageReference
from cvmfs_graphdriver.oci.registry.registry import RegistryImage

__all__ = ["RecipePass", "recipe_argument"]

_PASSWORD = "DUCC_OUTPUT_REGISTRY_PASS"  # noqa: S105 - the variable's name, from DUCC

recipe_argument = click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path, dir_okay=False))


@dataclass(frozen=True, slots=True)
class RecipePass:
    """One pass over a recipe."""

    access: Access
    publishing: Publishing
    file: Path
    as_json: bool

    def run(self) -> None:
        """Convert all its images, reporting each when it is done.

        Raises RecipeError: the recipe cannot be read. RecipeIncompleteError: some images failed.
        PublisherError, KeyringError: the repository cannot be opened for publishing.
        """
        recipe = self._read()
        failed = total = 0
        repository = self.publishing.open(recipe.repository)
        with watch() as progress:
            layout = self.publishing.layout if recipe.thin_images else UnpackedLayout()
            batch = Batch(repository, layout, progress, self.publishing.platform)
            for outcome in batch.run(self._requests(recipe)):
                tell_outcome(recipe.repository, outcome, as_json=self.as_json)
                total += 1
                failed += outcome.error is not None
        if failed:
            raise RecipeIncompleteError(
                f"{failed} of {total} images of {self.file} could not be converted, see above; "
                "run it again: finished images are skipped"
            )

    def _read(self) -> Recipe:
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise RecipeError(f"{self.file}:1: cannot be read: {error.strerror}") from error
        return Recipe.parse(str(self.file), data)

    def _requests(self, recipe: Recipe) -> Iterator[ConversionRequest | Outcome]:
        """The images that the recipe currently stands for, and errors in finding them."""
        for line in recipe.inputs:
            try:
                images = self._images(line)
            except CvmfsGraphdriverError as error:
                yield Outcome(line.place, line.text, error=error)
                continue
            for image in images:
                yield ConversionRequest(
                    str(image),
                    functools.partial(self._source, image),
                    functools.partial(self._target, recipe, line, image) if recipe.thin_images else None,
                    line.place,
                )

    def _images(self, line: RecipeInput) -> list[ImageReference]:
        if not line.pattern:
            return [line.reference]
        registry = self.access.registry(line.reference.host)
        return list(line.expand(registry.tags(line.reference.repository)))

    def _source(self, image: ImageReference) -> RegistryImage:
        return RegistryImage(self.access.registry(image.host), image)

    def _target(self, recipe: Recipe, line: RecipeInput, image: ImageReference) -> ThinTarget:
        output = recipe.output(line, image)
        password = os.environ.get(_PASSWORD)
        login = (recipe.user, password) if recipe.user and password is not None else None
        return ThinTarget(self.access.registry(output.host, login), output, self.publishing.form)
