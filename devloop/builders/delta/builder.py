"""A builder that, after the first image, adds only what changed: one small layer, made here.

The first image comes from whichever builder it stands in front of. While nobody waits, that image's
layers are read and compared with what the COPYs should have placed; from then on an image is the
same layers plus one with every path that differs, or with a COPY's layer made again where something
went away. What cannot be proven to equal a full build goes to the fallback builder, with the
reason.

No command is run and no Docker is asked here. A save never waits for housekeeping: layers are
folded after a pause, and the next save ends that.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import Background
from devloop.builders.delta.analysis import is_plain_build, rules
from devloop.builders.delta.base_layers import BaseLayersReader
from devloop.builders.delta.copy_targets import ShownCopies
from devloop.builders.delta.layer_state import LayerState
from devloop.builders.delta.shortcut import BOUND_BYTES, BOUND_ENTRIES, Shortcut
from devloop.builders.delta.verification import check_triggers, examine
from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import StageState
from devloop.builders.image.full_build import HasTriggers, NeedsFullBuild
from devloop.builders.image.repository import Repository
from devloop.builders.job import tag_of
from devloop.builders.named_contexts import check_stages
from devloop.errors import DevloopError
from devloop.model import Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.builders.built_images import CachedImages
    from devloop.builders.delta.layer_state import LayerChange
    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.image.documents import Image
    from devloop.builders.image.listing import Listing
    from devloop.builders.job import Job, Registry
    from devloop.engine.ports import Builder, Reporter
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, Scan


# Finds an image of the same recipe and repository, by its digest, and what it was made of.
LastBuilt: TypeAlias = "Callable[[Scan, str], tuple[Scan, str] | None]"

_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# A pause in the saves of this many seconds is taken for idleness.
_IDLE = 2.0

# In this many seconds an image is usually served.
_SERVED = 0.7

# So long, in seconds, a save waits for what the last image shows; the look began with its build.
_PATIENCE = 1.0

# So often are the images of one recipe looked at in vain; it may have been the files.
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownImage:
    """The image that was made last, of which scan, and how to go on from it."""

    scan: Scan
    image: ImageRef
    finding: Background[Shortcut]


@dataclass(frozen=True, slots=True, kw_only=True)
class _GivenUp:
    """The recipe of which no image could be carried on, how often in a row, and why."""

    recipe: str | None = None
    reason: NeedsFullBuild | None = None
    times: int = 0


class DeltaBuilder:
    """Stands in front of another builder of the same service. `close` ends its threads."""

    def __init__(
        self,
        job: Job,
        fallback: Builder,
        registry: Registry | None,
        images: CachedImages,
        *,
        once: bool = False,
        last_built: LastBuilt | None = None,
    ) -> None:
        """Without a `registry`, the fallback builder makes every image. With `once` no image is
        expected after the first, so none is looked into for how to carry it on, but for the one
        that `last_built` finds for the first."""
        self._once = once
        self._last_built = last_built
        self._job = job
        self._fallback = fallback
        self._registry = registry
        self._images = images
        # Whoever carries an image on; a build that was cancelled may still be leaving.
        self._lock = threading.Lock()
        self._known: _KnownImage | None = None
        # For this recipe there is no way past the fallback builder, and why.
        self._given_up = _GivenUp()
        self._reported = False
        self._resting: Background[None] | None = None
        self._opening: Background[None] | None = None
        self._base_layers = BaseLayersReader()
        # For what its image shows somebody has waited already.
        self._awaited: Background[Shortcut] | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder."""
        known, reason = None if scan.fresh else self._known or self._earlier(scan), ""
        if self._resting is not None:
            self._resting.stop()
        if known is not None:
            try:
                return self._carry_on(known, scan, reporter, cancel)
            except NeedsFullBuild as needed:
                reason = needed.reason
            except (Cancelled, DevloopError):
                raise
            except Exception:
                # A bug here must not be met again with the next save.
                self._known = None
                raise
        elif scan.fresh:
            reason = "it is asked for"
        elif self._given_up.recipe == scan.recipe:
            reason = self._given_up.reason.reason if self._given_up.reason else ""
        elif self._registry is None and not (self._once or self._reported):
            reason, self._reported = "images are loaded into the nodes, not pushed", True
        before = self._dockerfile()
        explained = _Explained(reporter, reason) if reason else reporter
        image = self._fallback.build(scan, explained, cancel)
        if not self._once:
            self._learn(scan, image, before)
        return image

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        return self._job.may_differ(before, after)

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        return self._job.wrote(before, after)

    def below_copies(self) -> Listing | None:
        """What the image that was built last has below the layers of its COPYs; None where that is
        not known. Waits a second at most."""
        known, cancel = self._known, Cancel()
        if known is None or not known.finding.wait(0, cancel):
            return None
        with contextlib.suppress(Cancelled, DevloopError, NeedsFullBuild, OSError):
            return known.finding.result(cancel).base_layers(cancel)
        return None

    def shown_copies(self, recipe: str) -> ShownCopies | None:
        """What the image that was built last has shown of its COPYs; None where that is not known,
        or of another recipe. Waits a second at most, and for one image once. Raises
        `HasTriggers`."""
        known, cancel, given_up = self._known, Cancel(), self._given_up
        if known is None and given_up.recipe == recipe:
            if isinstance(given_up.reason, HasTriggers):
                raise given_up.reason
            return None
        if known is None or known.scan.recipe != recipe:
            return None
        patience = 0.0 if self._awaited is known.finding else _PATIENCE
        self._awaited = known.finding
        if not known.finding.wait(patience, cancel):
            return None
        try:
            return known.finding.result(cancel).shown
        except HasTriggers:
            raise
        except (Cancelled, DevloopError, NeedsFullBuild, OSError):
            return None

    def resume(self, scan: Scan) -> None:
        """Go on from the image that an earlier session made of `scan`, where that is remembered:
        look into it as into one that was just built. The Dockerfile must be that of `scan`."""
        digest = self._images.find(self._job.repository, scan.fingerprint.build)
        if digest is not None and self._known is None and not self._once:
            self._learn(scan, self._job.image_ref(scan, digest), self._dockerfile())

    def _earlier(self, scan: Scan) -> _KnownImage | None:
        """The image that an earlier session made of the same recipe."""
        look, self._last_built = self._last_built, None
        if look is None or self._registry is None or self._given_up.recipe == scan.recipe:
            return None
        repository = self._job.repository
        if self._images.find(repository, scan.fingerprint.build) is not None:
            return None  # of the very same content
        found = look(scan, repository)
        if found is None:
            return None
        of, digest = found
        self._learn(of, self._job.image_ref(of, digest), self._dockerfile())
        # The Dockerfile that was read just now has to be the one that was looked at.
        if self._job.written_since(scan) is None and self._known is not None:
            self._known.finding.stop()
            self._known = None
        return self._known

    def settle(self) -> None:
        """Wait until nothing goes on in the background, for tests and measurements. Never raises
        what went wrong there: the next build reports it."""
        for each in self._running():
            each.join()
        self._base_layers.settle()

    def close(self) -> None:
        """End what goes on in the background."""
        for each in self._running():
            each.close()
        self._known = self._resting = self._opening = None
        self._base_layers.close()

    def _running(self) -> Iterator[Background[Shortcut] | Background[None]]:
        """What begins another comes before that one, which may be there only afterwards."""
        if self._known is not None:
            yield self._known.finding
        yield from filter(None, (self._resting, self._opening))

    # --- an image made here --------------------------------------------------------------------

    def _carry_on(
        self, known: _KnownImage, scan: Scan, reporter: Reporter, cancel: Cancel
    ) -> ImageRef:
        if scan.recipe != known.scan.recipe:
            what = (
                "its base image, a named context" if self._job.build.contexts else "its base image"
            )
            raise NeedsFullBuild(f"the Dockerfile, {what} or the build's settings changed")
        try:
            shortcut = known.finding.result(cancel)
        except NeedsFullBuild as needed:
            times = self._given_up.times if self._given_up.recipe == scan.recipe else 0
            self._given_up = _GivenUp(recipe=scan.recipe, reason=needed, times=times + 1)
            raise
        except Cancelled:
            cancel.check()
            raise NeedsFullBuild("the session is at its end") from None
        except DevloopError as error:
            raise NeedsFullBuild(error.diagnosis.message) from None
        with self._lock:
            change = shortcut.plan(scan, cancel)
            if change == shortcut.published:
                reporter.started(Step.BUILD)
                reporter.finished(Step.BUILD, StepOutcome.SKIPPED, "no COPY takes what changed")
                return known.image
            if self._once and _is_big(change):
                raise NeedsFullBuild("much has changed since the image that it would go on from")
            reporter.started(Step.BUILD)
            made = shortcut.make(change, scan.kept)
            cancel.check()
            summary = f"{made.summary} on {shortcut.digest[7:13]}"
            reporter.finished(Step.BUILD, StepOutcome.DONE, summary)
            reporter.started(Step.PUSH)
            digest = shortcut.send(made, tag_of(scan), cancel)
            reporter.finished(Step.PUSH, StepOutcome.DONE, f"{digest[:19]}…")
            image = self._job.image_ref(scan, digest)
            self._known = _KnownImage(scan=scan, image=image, finding=known.finding)
            self._resting = Background(
                f"rest-{self._job.image}", lambda quiet: self._rest(image, scan, shortcut, quiet)
            )
        return image

    # --- an image of the fallback builder --------------------------------------------------------

    def _dockerfile(self) -> bytes | None:
        try:
            return self._job.build.dockerfile.read_bytes()
        except OSError:
            return None

    def _learn(self, scan: Scan, image: ImageRef, before: bytes | None) -> None:
        """Begin to find out how `image` can be carried on."""
        old = self._known
        self._known = None
        if old is not None:
            old.finding.stop()
        # Read before and after: so it is what the builder saw.
        text = self._dockerfile()
        given_up = self._given_up.recipe == scan.recipe and self._given_up.times >= _TRIES
        registry = self._registry
        if registry is None or not image.digest or text is None or text != before or given_up:
            return
        finding = Background(
            f"look-{self._job.image}",
            lambda cancel: self._look(registry, scan, image, text, cancel),
            expected=(DevloopError, NeedsFullBuild),
        )
        self._known = _KnownImage(scan=scan, image=image, finding=finding)

    def _look(
        self, registry: Registry, scan: Scan, image: ImageRef, text: bytes, cancel: Cancel
    ) -> Shortcut:
        """Raises `NeedsFullBuild`, registry/* and Cancelled."""
        job, build = self._job, self._job.build
        command = build.command or ()
        if build.builder == "command" and not is_plain_build(command, job.root, build.context):
            raise NeedsFullBuild("the build command may do more than the Dockerfile says")
        if build.platforms:
            raise NeedsFullBuild("the image is for several platforms")
        repository = Repository(registry, image.repository)
        found = repository.image(image.digest, build.platform, cancel)
        dockerfile = parse(text.decode("utf-8", "replace"))
        check_stages(dockerfile, build, job.shown)
        base = _below(found, dockerfile)
        analysis = rules(dockerfile, build.target, build.args, base, job.shown)
        read = partial(repository.entries, cancel=cancel)
        bare = found.without_delta()
        told = check_triggers(bare, analysis.own, scan.snapshot, read)
        if told:
            self._job.reads.learn(scan.recipe, analysis.patterns)
        base_state = examine(
            found, analysis.copies, scan.snapshot, analysis.depth, read=read, head=self._head
        )
        self._opening = Background(
            f"open-{job.image}", repository.get_ready, expected=(DevloopError,)
        )
        first = min((copy_layer.index for copy_layer in base_state.copy_layers), default=0)
        below = replace(bare, layers=bare.layers[:first])
        return Shortcut(
            repository,
            bare,
            LayerState(base_state),
            analysis,
            context=build.context,
            digest=image.digest,
            shown=ShownCopies(
                base=base,
                owners={each.copy.instruction.start: each.owner for each in base_state.copy_layers},
                above=base_state.above,
                reads=analysis.patterns if told else None,
            ),
            base_layers=self._base_layers.read(repository, below),
        )

    def _head(self, path: str) -> bytes:
        """The first 512 bytes of a file in the context."""
        try:
            fd = os.open(self._job.build.context / path, _NO_LINK)
            with os.fdopen(fd, "rb") as file:
                return file.read(512)
        except OSError:
            raise NeedsFullBuild(f"{path} cannot be read") from None

    # --- when nobody waits ---------------------------------------------------------------------

    def _rest(self, image: ImageRef, scan: Scan, shortcut: Shortcut, cancel: Cancel) -> None:
        """What can be done after an image is on its way: it ends when the next save comes."""
        # Not at once: the disk and the registry are busy with getting it served.
        cancel.wait(_SERVED)
        self._images.add(image.repository, scan.fingerprint.build, image.digest)
        with contextlib.suppress(Cancelled, DevloopError, NeedsFullBuild):
            shortcut.repository.get_ready(cancel)
            if not _is_big(shortcut.published) or self._once or cancel.wait(_IDLE):
                return
            self._fold(shortcut, cancel)

    def _fold(self, shortcut: Shortcut, cancel: Cancel) -> None:
        """Make the layers of the COPYs again, so that the next delta starts from nothing."""
        with self._lock:
            cancel.check()
            frozen = shortcut.state.freeze()
            change = shortcut.state.change(fold=True)
            image = shortcut.image
        made = shortcut.make(change)
        for blob in made.blobs:
            cancel.check()
            shortcut.repository.put(blob, cancel)
        with self._lock:
            # Unless an image was tried meanwhile: what that left is another state.
            if shortcut.image is image and shortcut.state.snapshot is frozen.snapshot:
                shortcut.folded(made, frozen)


class _Explained:
    """A reporter that adds why the fallback builder has to work."""

    def __init__(self, reporter: Reporter, reason: str) -> None:
        self._reporter = reporter
        self._explanation = f"full build: {reason}"

    def started(self, step: Step) -> None:
        self._reporter.started(step)
        if step is Step.BUILD:
            self._reporter.progress(step, self._explanation)

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self._reporter.progress(step, message, current=current, total=total)

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        if step is Step.BUILD and outcome is StepOutcome.DONE:
            detail = "; ".join(filter(None, (detail, self._explanation)))
        self._reporter.finished(step, outcome, detail)

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        self._reporter.diagnostic(diagnosis)


def _is_big(change: LayerChange) -> bool:
    return change.size > BOUND_BYTES or change.entries > BOUND_ENTRIES


def _below(image: Image, dockerfile: Dockerfile) -> StageState:
    """What the image that the final stage starts from says, guessed from the one made from it. A
    wrong guess shows when the layers are compared."""
    config = image.config.get("config") or {}
    pairs = (str(entry).partition("=") for entry in config.get("Env") or ())
    changed = {
        word.partition("=")[0]
        for instruction in dockerfile.instructions
        if instruction.keyword == "ENV"
        for word in instruction.value.split()
    }
    return StageState(
        env={key: value for key, _, value in pairs if key not in changed},
        workdir=str(config.get("WorkingDir") or "/"),
    )
