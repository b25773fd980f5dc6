"""All images of a recipe, one after the other.

Owns: which images a recipe stands for by now, and that one bad image never stops the rest. Must not know: how
often a recipe is gone through, nor who is told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.make_thin import MadeThin, ThinTarget, make_thin
from cvmfs_graphdriver.conversion.progress import Progress
from cvmfs_graphdriver.conversion.recipe import Recipe, RecipeInput
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.platform import Platform
from cvmfs_graphdriver.oci.reference import Reference
from cvmfs_graphdriver.oci.registry import Registry, RegistryImage
from cvmfs_graphdriver.oci.source import load_image
from cvmfs_graphdriver.oci.thin_image import ManifestFormat
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = ["Batch", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image, or of a line for which none could be found: ``made`` or ``error``."""

    place: str
    """File and line of the recipe."""
    image: str
    made: MadeThin | None = None
    error: CvmfsGraphdriverError | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """How the images of recipes are converted."""

    source_registry: Callable[[str], Registry]
    """Gives the registry ``host[:port]`` that is read from."""
    target_registry: Callable[[str], Registry]
    """Gives the registry that is pushed to."""
    repository: Repository
    layout: LayerLayout
    progress: Progress
    platform: Platform | None = None
    form: ManifestFormat = ManifestFormat.DOCKER

    def run(self, recipe: Recipe) -> Iterator[Outcome]:
        """Convert every image; what cannot be is told, and the next one is taken."""
        for source in recipe.inputs:
            try:
                images = self._images(source)
            except CvmfsGraphdriverError as error:
                yield Outcome(source.place, source.text, error=error)
                continue
            for image in images:
                try:
                    yield Outcome(source.place, str(image), made=self._convert(recipe, source, image))
                except CvmfsGraphdriverError as error:
                    yield Outcome(source.place, str(image), error=error)

    def _images(self, source: RecipeInput) -> list[Reference]:
        if not source.pattern:
            return [source.reference]
        registry = self.source_registry(source.reference.host)
        return list(source.expand(registry.tags(source.reference.repository)))

    def _convert(self, recipe: Recipe, source: RecipeInput, image: Reference) -> MadeThin:
        output = recipe.output(source, image)
        target = ThinTarget(self.target_registry(output.host), output, self.form)
        origin = RegistryImage(self.source_registry(image.host), image)
        loaded = load_image(origin, self.platform)
        return make_thin(origin, loaded, self.repository, self.layout, target, self.progress)
