"""Many images, in as few revisions as is wise.

Owns: which images share a revision, and that one bad image never stops the rest: it leaves no trace in the
revision of the others. Must not know: where the list of images comes from, nor who is told.

A revision is published when it has enough new layers, or when the first of its images has waited long enough:
what is not published is lost if the program is killed, and nobody sees it.
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
"""New layers in one revision, each of which is an open catalog until then."""
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """An image that shall be made thin; both functions may raise, as they do for a bad name."""

    image: str
    """As whoever asks for it calls it."""
    source: Callable[[], ImageSource]
    target: Callable[[], ThinTarget]
    place: str = ""
    """File and line of a recipe."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image, or of a line for which none could be found: ``made`` or ``error``."""

    place: str
    image: str
    made: MadeThin | None = None
    error: CvmfsGraphdriverError | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """An image whose layers are in the revision that is being made."""

    outcome: Outcome
    draft: ThinDraft
    conversion: Conversion

    def finish(self) -> Outcome:
        try:
            return replace(self.outcome, made=self.draft.finish(self.conversion))
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
        """Convert every image; what cannot be is told, and the next one is taken.

        Outcomes come in the order of what was asked for; one among the requests is passed on in its place.
        """
        waiting = iter(requests)
        for first in waiting:
            yield from self._revision(itertools.chain([first], waiting))

    def _revision(self, requests: Iterable[ConversionRequest | Outcome]) -> Iterator[Outcome]:
        """Publish one revision, and tell what became of its images."""
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
            draft = ThinDraft.prepare(image, self.repository.fqrn, self.layout, request.target())
            return _Taken(begun, draft, intake.add(source, image))
        except CvmfsGraphdriverError as error:
            return replace(begun, error=error)


def _begun(request: ConversionRequest | Outcome) -> Outcome:
    return request if isinstance(request, Outcome) else Outcome(request.place, request.image)


def _failed(one: Outcome | _Taken, error: CvmfsGraphdriverError) -> Outcome:
    """What became of an image whose revision could not be published; an error of its own counts."""
    outcome = one.outcome if isinstance(one, _Taken) else one
    return outcome if outcome.error is not None else replace(outcome, error=error)
