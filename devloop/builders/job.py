"""What building needs from elsewhere and what every builder is given.

Adapters do not import each other, so the registry's client and the loader come in through the
protocols here; app.py wires them.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.context_reads import ContextReads
from devloop.builders.own_outputs import OwnOutputs
from devloop.builders.rawjson import one_line
from devloop.errors import Code, DevloopError
from devloop.model import ImageRef, Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.rawjson import Note
    from devloop.config.builds import Build
    from devloop.engine.ports import Reporter
    from devloop.model import PushTarget, Scan


# Half an hour: longer than any build one waits for, short enough that a hung one ends by itself.
LIMIT = 1800.0


# What distinguishes devloop's tags from everybody else's in the same repository.
TAG_PREFIX = "devloop-"


class RegistryManifest(Protocol):
    """A manifest as a registry gave it."""

    @property
    def digest(self) -> str: ...

    @property
    def media_type(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class Registry(Protocol):
    """The client of one registry, as building needs it. `name` is a repository without the host,
    `repository` one with it. Every call raises registry/* or Cancelled."""

    def digest(self, repository: str, reference: str, cancel: Cancel) -> str | None:
        """The `sha256:...` that the registry has for a tag or digest, None when it has none."""
        ...

    def name(self, repository: str) -> str: ...

    def get_manifest(
        self, name: str, reference: str, cancel: Cancel
    ) -> RegistryManifest | None: ...

    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel
    ) -> object: ...

    def head_blob(self, name: str, digest: str, cancel: Cancel) -> int | None: ...

    def get_blob(self, name: str, digest: str, cancel: Cancel) -> bytes | None: ...

    def open_blob(
        self, name: str, digest: str, cancel: Cancel
    ) -> AbstractContextManager[Iterator[bytes] | None]: ...

    def mount_blob(self, name: str, digest: str, origin: str, cancel: Cancel) -> bool: ...

    def put_blob(self, name: str, data: bytes, cancel: Cancel) -> str: ...

    def put_chunks(self, name: str, chunks: Iterable[bytes], cancel: Cancel) -> object: ...

    def ready_uploads(self, name: str, count: int, cancel: Cancel) -> None:
        """Open uploads ahead of time, so that the next `put_blob`s take one round trip."""
        ...


if TYPE_CHECKING:
    OpenRegistry = Callable[[str], Registry]
    """From `host[:port]` to its client, which whoever gave the function closes."""


class Loader(Protocol):
    """Copies an image from the local Docker into a cluster's nodes."""

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One service's build, as every builder gets it.

    `image` is the name without registry and tag, `root` the project's directory, `shown` the
    Dockerfile as the user would type it. `written_since` names the paths of the context that were
    written to since a scan, None when more than those may have been. `limit` is in seconds.
    With `pull` the registry's base images count, whatever the local Docker has."""

    build: Build
    image: str
    root: Path
    target: PushTarget
    shown: str
    written_since: Callable[[Scan], frozenset[str] | None]
    registry: Registry | None = None
    loader: Loader | None = None
    limit: float = LIMIT
    pull: bool = False
    reads: ContextReads = field(default_factory=ContextReads)
    outputs: OwnOutputs = field(default_factory=OwnOutputs)

    @property
    def repository(self) -> str:
        """Where the image is pushed to, `host[:port]/name`."""
        return self.target.repository(self.image)

    def image_ref(self, scan: Scan, digest: str) -> ImageRef:
        """The image of `scan`; `digest` is "" for one that is in no registry."""
        pull = self.target.pull_repository(self.image)
        return ImageRef(
            repository=self.repository, tag=tag_of(scan), digest=digest, pull_repository=pull
        )

    def check_unchanged(self, scan: Scan) -> None:
        """Raise build/context-changed when a file that the build may have read was written since
        `scan`.

        The builder reads the files itself and later than the scan, so only this check makes the
        tag (which is made from the scan) tell the truth about the image. For what keeps changing
        builders have what the scan has kept."""
        written = self.written_since(scan)
        if written is not None:
            written -= scan.passing
        if written is None or (written and self.reads.may_read(scan, written)):
            raise context_changed()

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """Whether the images of two scans may differ."""
        return self.reads.may_differ(before, after) and not self._written(before, after, sure=False)

    def wrote(self, before: Scan, after: Scan) -> bool:
        """Whether all that differs is sure to be the build's own output."""
        return self._written(before, after, sure=True)

    def _written(self, before: Scan, after: Scan, *, sure: bool) -> bool:
        if self.build.builder != "command" or before.recipe != after.recipe:
            return False
        changed = after.snapshot.changed_since(before.snapshot)
        return self.outputs.hold(changed) if sure else self.outputs.may_hold(changed)

    def confirm(self, digest: str, tag: str, cancel: Cancel) -> str:
        """The digest under which the registry holds what was just pushed as `tag`.

        `digest` is what the builder reports, "" when it reports none. A registry that does not
        answer here (the builder may be elsewhere) confirms nothing; then the builder is believed.
        Raises registry/digest-mismatch, and registry/push-failed when nobody knows a digest."""
        repository = self.repository
        try:
            held = self.registry.digest(repository, tag, cancel) if self.registry else digest
            same = held == digest
            if digest and not same and self.registry:
                # The tag may have been pushed by another build of the same content meanwhile.
                same = self.registry.digest(repository, digest, cancel) is not None
        except DevloopError:
            if digest:
                return digest
            raise
        if digest and same:
            return digest
        if digest:
            raise DevloopError.of(
                Code.REGISTRY_DIGEST_MISMATCH,
                f"{repository}:{tag} is not the image that was pushed",
                cause=f"pushed {digest}, the registry has {held or 'nothing'}",
                suggestions=("check that the name leads to one registry only",),
            )
        if held:
            return held
        raise DevloopError.of(
            Code.REGISTRY_PUSH_FAILED,
            f"the registry does not have {repository}:{tag} after the push",
        )

    def publish(
        self,
        scan: Scan,
        progress: ProgressReporter,
        cancel: Cancel,
        *,
        summary: str,
        pushed: Callable[[], str],
        checked: bool = False,
    ) -> ImageRef:
        """The end of every build that another program did: push or load, make sure, report.

        `summary` says what was built; `pushed` gives the digest under which the registry has the
        image, and pushes it first if that is still to be done. `checked` is True for what was built
        from a verified copy of the context. Raises build/context-changed, and what `pushed` and the
        loader raise."""
        progress.push(summary)
        digest = pushed() if self.target.push else ""
        if not self.target.push and self.loader is not None:
            self.loader.load(f"{self.repository}:{tag_of(scan)}", cancel, progress.report)
        if not checked:
            self.check_unchanged(scan)
        nodes = self.target.nodes
        loads = nodes is not None and nodes.tool != "docker"
        loaded = f"loaded into the nodes of {nodes.cluster}" if nodes and loads else ""
        loaded = loaded or "in the local Docker"
        progress.done(summary, f"{digest[:19]}…" if digest else loaded)
        return self.image_ref(scan, digest)

    def overran(self, running: str, log: Sequence[str]) -> DevloopError:
        """build/timeout; `running` is the step that went on, "" if unknown, `log` its output."""
        return DevloopError.of(
            Code.BUILD_TIMEOUT,
            f"the build took longer than {self.limit:.0f} s",
            cause=f"it was still running {one_line(running)}" if running else None,
            detail=tuple(log)[-20:],
        )


class ProgressReporter:
    """Turns what a builder notices into the steps `build` and `push`, the same whichever builder
    runs. `build` begins at once; `push` when the image is being written out, which ends `build`."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.step = Step.BUILD
        reporter.started(Step.BUILD)

    def take(self, note: Note, summary: str) -> None:
        if note.kind == "export":
            self.push(summary)
        self.report(note.message, current=note.current, total=note.total)

    def report(self, message: str, *, current: int | None = None, total: int | None = None) -> None:
        self.reporter.progress(self.step, one_line(message, 120), current=current, total=total)

    def push(self, summary: str) -> None:
        if self.step is Step.BUILD:
            self.reporter.finished(Step.BUILD, StepOutcome.DONE, summary)
            self.step = Step.PUSH
            self.reporter.started(Step.PUSH)

    def done(self, summary: str, detail: str) -> None:
        self.push(summary)
        self.reporter.finished(Step.PUSH, StepOutcome.DONE, detail)


def context_changed() -> DevloopError:
    return DevloopError.of(
        Code.BUILD_CONTEXT_CHANGED, "a file changed while the image was being built"
    )


def tag_of(scan: Scan) -> str:
    """The content's tag; two builds of the same inputs share it."""
    return f"{TAG_PREFIX}{scan.fingerprint.build[:16]}"


def shown_path(path: Path) -> str:
    """`path` as the user would type it: relative to the working directory if it is below."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
