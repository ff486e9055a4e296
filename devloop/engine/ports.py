"""What the engine needs from the world: seven small ports, one implementation each in the adapters.

All calls block, run in a worker's own thread, take a `Cancel`, and either return, raise
`Cancelled` soon (well under a second) after it was set, or raise `DevloopError`. Any other
exception is a bug in devloop and is reported as `internal/bug`. `PodSource` and `ByteStream` are
what adapters need of one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.engine.state import GoodImage
    from devloop.errors import Diagnosis
    from devloop.model import (
        Deployed,
        Fingerprint,
        ImageRef,
        ManifestObject,
        PodView,
        RenderingInputs,
        Resumed,
        Scan,
        Served,
        Standing,
        Step,
        StepOutcome,
    )

    HookTime = Literal["after_build", "after_sync", "before_deploy", "after_deploy"]
    StandingOf = Callable[[Mapping[str, ImageRef]], Standing | str]


class Reporter(Protocol):
    """How a worker reports what it is doing. Safe to call from the worker's thread only.

    The engine closes every step that a worker left open when the worker ends: as `done`, `failed`
    or `cancelled` by how it ended."""

    def started(self, step: Step) -> None: ...

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None: ...

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None: ...

    def diagnostic(self, diagnosis: Diagnosis) -> None: ...


class Hints(Protocol):
    """File events. A hint says where to look, never what is there."""

    def hints(self, cancel: Cancel) -> Iterator[frozenset[Path] | None]:
        """Yield the absolute paths that may have changed; None means: anything may have.

        Paths that are ignored by every service are left out. Ends when cancelled; survives every
        fault of the watcher by itself (restart with back-off, then None)."""


class Source(Protocol):
    """One service's inputs on disk."""

    def scan(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        passing: frozenset[str] = ...,
        needs: Mapping[str, str] = ...,
    ) -> Scan:
        """Look at the disk. `hints` may narrow what is looked at; None looks at everything.
        `passing` are paths that keep changing, as `changed` of a scan names them: a build of what
        is found is to go on when they change once more. `needs` are the images of the services that
        this one needs, "" for one that has none yet."""

    def concerns(self, path: Path) -> bool:
        """Whether a change of `path` can change the fingerprint (False for ignored paths)."""


class Rendering(Protocol):
    """Where one service's Kubernetes objects come from: files, a kustomization, a chart."""

    def inputs(self) -> RenderingInputs:
        """What the objects are made from now, for the fingerprint and the watch. Quick; reads no
        more than what names other inputs, and raises nothing for what is not there."""

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = ...
    ) -> tuple[ManifestObject, ...]:
        """The objects in the order to show and apply them, none twice; `notify` gets what was left
        out. Errors: config/manifest*, env/file-unreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """`values` that the mapping at `path` of one object gets: an image, an annotation."""

    kind: str
    name: str
    path: tuple[str | int, ...]
    values: Mapping[str, object]


class Release(Protocol):
    """A rendering that somebody else than devloop applies, and keeps a record of."""

    @property
    def name(self) -> str: ...

    def upgrade(self, pins: Iterable[Pin], *, timeout: float, cancel: Cancel) -> None:
        """Have the cluster have it, with `pins`. `timeout` is in seconds. Errors: manifests/*,
        env/*, cluster/*."""


class Builder(Protocol):
    """Makes one service's image and puts it where the nodes can get it."""

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """Build and publish; reports the steps `build` and `push` as they happen.

        The image is exactly what `scan` saw: when a file was written meanwhile, raises
        `build/context-changed`. Errors: build/*, registry/*, env/*."""


class ServiceBuilder(Builder, Protocol):
    """The one that the engine asks for a service's images."""

    def wrote(self, before: Scan, after: Scan) -> bool:
        """Whether the build itself wrote all in which `after` differs from `before`: then it is no
        change of the project. Quick; asks nobody."""
        ...

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """Whether the images of two scans may differ; False only where that is proven. Quick; asks
        nobody."""
        ...


class Hooks(Protocol):
    """The user's own commands before and after the steps of one service."""

    def before_build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        """Run those before a build of `scan`; what is to be built after them. Errors:
        hook/failed."""

    def before_sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        """As `before_build`, before `scan` is synced into what runs. Where that stands for a build,
        those before a build are among them."""

    def run(
        self, when: HookTime, image: ImageRef | None, reporter: Reporter, cancel: Cancel
    ) -> None:
        """Run those of another time; `image` is the one in question, if any. Errors:
        hook/failed."""

    def wrote(self, before: Scan, after: Scan) -> bool:
        """Whether they wrote all in which `after` differs from `before`: then it is no change of
        the project. Quick; asks nobody."""
        ...

    def may_have_written(self, before: Scan, after: Scan) -> bool:
        """Whether they may have: an iteration under way goes on then, and what is found is looked
        at after it. Quick; asks nobody."""
        ...


class Tester(Protocol):
    """Says whether one service's image may be deployed."""

    def test(self, image: ImageRef, reporter: Reporter, cancel: Cancel, *, again: bool) -> None:
        """Run the test in the image; `again` also where it passed before. Reports the step `test`.
        Errors: test/failed, env/*."""


class ImagesMissing(Exception):  # noqa: N818 - not an error: they are being made
    """The manifests run images of other `services`, which this session has not made yet."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__(", ".join(services))
        self.services = frozenset(services)


class Deployer(Protocol):
    """Gets one service's image served."""

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        """Write the cluster (apply the manifests, patch the workloads) and return at once.

        Cancelled only between two writes. Raises `ImagesMissing` before the first. Errors:
        config/manifest*, cluster/*, safety/*."""

    def go_back(
        self,
        image: ImageRef,
        untouched: Collection[str] | None,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Deployed:
        """As `deploy`, of an image that was deployed before. The pods in `untouched` have what
        their image has and nothing else, None: all have; others that would stay give way to new
        ones."""

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        """Wait until every wanted pod is ready and reports the deployed image.

        Raises pod/* as soon as the failure is certain, at the latest at the deadline."""

    def await_recovery(self, deployed: Deployed, cancel: Cancel) -> Served:
        """Wait, for as long as it takes, until the pods of a rollout that failed are ready after
        all.

        Raises cluster/* or safety/* when they never will be: the workload was deleted, or somebody
        else has changed its image."""

    def await_cause(self, cancel: Cancel) -> str | None:
        """Wait, for as long as it takes, until what the last deploy failed for the want of is
        there: what that is, in words for the user. None where nothing is known to wait for."""

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        """Put back the images that the workloads of `deployed` had before."""

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        """Make pods to come start with `image` and leave those that run alone.

        None when it is so, else why it cannot be, in words for the user."""

    def standing(self, images: Mapping[str, ImageRef], cancel: Cancel) -> Standing | str:
        """What stands in the cluster, where it is all that a deploy of one of `images` (by digest)
        would leave there and every pod is ready; else why not, in words for the user. Writes
        nothing."""

    def recreate(self, deployed: Deployed, pods: Sequence[str], cancel: Cancel) -> None:
        """Have new pods take the place of those with these names."""


class GoodImages(Protocol):
    """The images of one service that were ready, kept for later sessions. A fault of the disk costs
    no more than the way back."""

    def known(self) -> tuple[GoodImage, ...]:
        """Newest last."""

    def add(self, image: ImageRef, fingerprint: Fingerprint) -> None:
        """`image` is served, or holds what is."""

    def went_back(self, image: ImageRef) -> None:
        """Those after `image` are nothing to go back to any more."""


class PodSource(Protocol):
    """The pods of each service as the cluster last reported them. No call blocks."""

    def current(self, service: str) -> tuple[PodView, ...]:
        """Every pod there is, in any order. Called from any thread."""

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each change, from any thread; returns how to stop that."""


class ByteStream(Protocol):
    """A stream of bytes into a container and back. For one thread at a time; no call blocks.

    `fileno` is for select. Bytes that `receive` would return at once although the descriptor is not
    readable are asked for by calling it until None."""

    def fileno(self) -> int: ...

    def receive(self) -> bytes | None:
        """Bytes, None when there are none now, b"" at the end. Raises OSError when the stream
        broke."""

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes were taken, 0 when none can be now. Raises OSError."""

    def flush(self) -> bool:
        """Push what was taken; False when the descriptor must become writable first."""

    def close(self) -> None: ...


class Syncer(Protocol):
    """Copies changed files into one service's running containers."""

    def image_contains(self, image: ImageRef, scan: Scan) -> None:
        """From now on, containers that run `image` are known to start from what `scan` saw."""

    def image_again(self, image: ImageRef, scan: Scan | None) -> frozenset[str]:
        """From now on what `image` has is to be served; `scan` is what it was made of, where that
        is known. The names of the pods that run it and have got nothing else."""

    def resume(self, scan: Scan, standing: StandingOf, cancel: Cancel) -> Resumed | str:
        """What the containers have that earlier sessions left. `standing` is asked about the images
        that these deployed with the manifests of `scan`, while their content is looked into. From
        then on `blocker` and `sync` go on from there. A text says why it is not known of one of
        them, "" when there was no session."""

    def strays(self, cancel: Cancel) -> tuple[str, ...]:
        """The pods that have something else than what is to be served and cannot be brought to it:
        files of another session, of which this one knows nothing. Waits until all others have
        it."""

    def blocker(self, scan: Scan) -> str | None:
        """None when all in which `scan` differs from what runs can be synced; else why not, in
        words for the user. Quick."""

    def sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Served:
        """Bring every running container to `scan`; reports the step `sync`. Containers that come
        later and start from an older image get what they miss by themselves.

        Errors: sync/* (the engine then has an image made), build/context-changed."""
