"""Converting many images in few revisions.

Owns: which images share a revision, and that a bad image never stops the others and leaves no trace in their
revision. Must not know: where the list of images comes from, how outcomes are reported.

A revision is published when it has enough new layers, or when its first image has waited long enough: until
then nobody sees it, and it is lost if the program is killed.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from cvmfs_graphdriver.conversion.convert import Conversion, Intake
from cvmfs_graphdriver.conversion.layout import LayerLayout
from cvmfs_graphdriver.conversion.make_thin import MadeThin, ThinDraft, ThinTarget
from cvmfs_graphdriver.conversion.progress import Progress
from cvmfs_graphdriver.errors import CvmfsGraphdriverError
from cvmfs_graphdriver.oci.image.platform import Platform
from cvmfs_graphdriver.oci.image.source import ImageSource, load_image
from cvmfs_graphdriver.publisher.repository import Repository

__all__ = ["Batch", "ConversionRequest", "Outcome"]

_LAYERS = 128
"""New layers in one revision; each is an open catalog until it is published."""
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """A request to convert an image; both functions may raise, for example for an invalid name."""

    image: str
    """The image's name as requested."""
    source: Callable[[], ImageSource]
    target: Callable[[], ThinTarget] | None
    """Where its thin image goes; None if none is wanted."""
    place: str = ""
    """File and line in a recipe."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for an image, or for a recipe's line that yields none: ``conversion`` or ``error``."""

    place: str
    image: str
    conversion: Conversion | None = None
    thin: MadeThin | None = None
    """Its thin image, if one was wanted."""
    error: CvmfsGraphdriverError | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """An image whose layers are in the revision being made."""

    outcome: Outcome
    draft: ThinDraft | None
    conversion: Conversion

    def finish(self) -> Outcome:
        try:
            thin = self.draft.finish() if self.draft else None
            return replace(self.outcome, conversion=self.conversion, thin=thin)
        except CvmfsGraphdriverError as error:
            return replace(self.outcome, error=error)


@dataclass(frozen=True, slots=True)
class Batch:
    """How images are converted."""

    repository: Repository
    layout: LayerLayout
    progress: Progress
    platform: Platform | None = None
    clock: Callable[[], float] = time.monotonic

    def run(self, requests: Iterable[ConversionRequest | Outcome]) -> Iterator[Outcome]:
        """Convert every image; failures are outcomes too, and do not stop the rest.

        Outcomes come in the order of the requests; an outcome among the requests is passed on in its place.
        """
        waiting = iter(requests)
        for first in waiting:
            yield from self._revision(itertools.chain([first], waiting))

    def _revision(self, requests: Iterable[ConversionRequest | Outcome]) -> Iterator[Outcome]:
        """Publish one revision and yield the outcomes of its images."""
        done: list[Outcome | _Taken] = []
        failure: CvmfsGraphdriverError | None = None
        requests = iter(requests)
        try:
            with Intake(self.repository, self.layout, self.progress) as intake:
                deadline = self.clock() + _SECONDS
                for request in requests:
                    one = request if isinstance(request, Outcome) else self._take(request, intake)
                    done.append(one)
                    if intake.broken and isinstance(one, Outcome):
                        failure = one.error
                        break
                    if intake.layers >= _LAYERS or self.clock() >= deadline:
                        break
                if failure is None:
                    intake.publish()
        except CvmfsGraphdriverError as error:
            failure = error
            done = done or [_begun(request) for request in itertools.islice(requests, 1)]
        for one in done:
            if failure is not None:
                yield _failed(one, failure)
            else:
                yield one.finish() if isinstance(one, _Taken) else one

    def _take(self, request: ConversionRequest, intake: Intake) -> Outcome | _Taken:
        begun = _begun(request)
        try:
            source = request.source()
            image = load_image(source, self.platform)
            draft = None
            if request.target is not None:
                draft = ThinDraft.prepare(image, self.repository.fqrn, self.layout, request.target())
            return _Taken(begun, draft, intake.add(source, image))
        except CvmfsGraphdriverError as error:
            return replace(begun, error=error)


def _begun(request: ConversionRequest | Outcome) -> Outcome:
    return request if isinstance(request, Outcome) else Outcome(request.place, request.image)


def _failed(one: Outcome | _Taken, error: CvmfsGraphdriverError) -> Outcome:
    """The outcome of an image whose revision could not be published; an error of its own prevails."""
    outcome = one.outcome if isinstance(one, _Taken) else one
    return outcome if outcome.error is not None else replace(outcome, error=error)
