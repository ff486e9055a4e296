"""`devloop bench`: times a real `devloop dev` over a number of edits, then the cluster alone.

The session is a process of its own, known by its event stream, so that what is measured is
what a user gets. One file of the project is edited and put back as it was, also after Ctrl-C or
TERM; its content is kept in .devloop for the case that even that fails.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from devloop.app import connect, find_registry, only_session
from devloop.app.bench_report import Report, Sample
from devloop.app.project_paths import may_read
from devloop.app.workloads import releases_in, workloads_of
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns
from devloop.base.process import CannotRun, run
from devloop.base.threads import Background
from devloop.builders.built_images import BuiltImage, BuiltImages
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.repository import push_variants
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.session_lease import SessionLeases
from devloop.cluster.deploy.status import read_status
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError
from devloop.manifests import renderings_of
from devloop.model import ImageRef
from devloop.registry.client import RegistryClient
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project, Service
    from devloop.engine.ports import Deployer
    from devloop.model import PushTarget, WorkloadRef


_START = 300.0
_EDIT = 120.0
_END = 10.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """`arguments` are the options that the session gets as well; `pause` is in seconds between an
    edit that is served and the next."""

    service: Service
    file: Path
    edits: int
    pause: float
    arguments: tuple[str, ...]


def pick_file(service: Service, project: Project) -> Path:
    """The text file of the service's context that was written last and may be in the image,
    Dockerfile and manifests aside. Errors: config/file-missing when there is none."""
    scan = ServiceSource(service, project.root).scan(None, Cancel())
    renderings = renderings_of([service]).values()
    manifests = {name for r in renderings for name in FilePatterns(r.inputs().patterns).files()}
    aside = {str(service.build.dockerfile), *manifests}
    files = (
        service.build.context / name
        for name, entry in scan.snapshot.entries.items()
        if entry.type == "file" and 0 < entry.size <= _MOST_BYTES and not name.startswith(".")
    )
    found = [(path.stat().st_mtime, path) for path in files if str(path) not in aside]
    for _, path in sorted(found, reverse=True):
        name = path.relative_to(service.build.context).as_posix()
        if may_read(service.build, name) and b"\0" not in path.read_bytes()[:8192]:
            return path
    raise DevloopError.of(
        Code.USAGE_ARGUMENTS,
        f"{service.name} has no text file to edit",
        suggestions=("name one: --edit PATH",),
    )


def bench(
    project: Project, plan: BenchPlan, notify: Callable[[str], None], cancel: Cancel
) -> Report:
    """Errors: what the session says, and pod/deadline when an edit is not served in time."""
    with contextlib.closing(_Session(plan, cancel)) as session:
        notify(f"starting devloop dev {plan.service.name} ...")
        session.until_settled(_START)
        with kept(plan.file, project.state_dir) as original:
            samples = list(_edits(session, plan, original, notify))
        session.until_settled(_EDIT)
    try:
        how, baseline, reason = *_baseline(project, plan, notify, cancel), ""
    except (DevloopError, NeedsFullBuild) as error:
        reason = error.reason if isinstance(error, NeedsFullBuild) else error.diagnosis.message
        how, baseline = "", ()
    return Report(
        service=plan.service.name,
        file=os.path.relpath(plan.file, project.root),
        samples=tuple(samples),
        baseline=baseline,
        baseline_how=how,
        baseline_reason=reason,
    )


def _edits(
    session: _Session, plan: BenchPlan, original: bytes, notify: Callable[[str], None]
) -> Iterator[Sample]:
    for number in range(1, plan.edits + 1):
        session.cancel.wait(plan.pause)
        session.cancel.check()
        saved = _save(plan.file, original.rstrip(b"\n") + b"\n" + _blank_lines())
        sample = session.sample(saved)
        notify(f"edit {number} of {plan.edits}: {sample.total:.0f} ms  {sample.how}")
        yield sample


def _blank_lines() -> bytes:
    """Blank lines, which hardly any language minds, as no edit before had them: content that was
    built once is not built again."""
    return b"".join(b" " * secrets.randbelow(60) + b"\n" for _ in range(4))


def _save(path: Path, content: bytes) -> float:
    """Write as editors do, another file put in place of the first; the time it was done."""
    beside = path.with_name(f".{path.name}.devloop-bench~")
    beside.write_bytes(content)
    beside.chmod(path.stat().st_mode)
    beside.replace(path)
    return time.time()


@contextlib.contextmanager
def kept(path: Path, state_dir: Path) -> Iterator[bytes]:
    """The file's content, put back with its times at the end."""
    copy = state_dir / f"bench-{path.name}.original"
    _take_back(path, copy)
    original, before = path.read_bytes(), path.stat()
    copy.write_bytes(original)
    try:
        yield original
    finally:
        _save(path, original)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        copy.unlink()


def _take_back(path: Path, copy: Path) -> None:
    """What a bench that was killed left in the file, unless somebody edited it since."""
    with contextlib.suppress(FileNotFoundError):
        original, now = copy.read_bytes(), path.read_bytes()
        if original != now and original.rstrip() == now.rstrip():
            _save(path, original)


class _Session:
    """`devloop dev` as a child process, its events in order."""

    def __init__(self, plan: BenchPlan, cancel: Cancel) -> None:
        self.cancel = cancel
        self._service = plan.service.name
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._diagnostics: list[dict[str, Any]] = []
        dev = (sys.executable, "-m", "devloop", "dev", self._service, "--output", "json")
        self._argv = (*dev, *plan.arguments)
        self._run = Background("bench", self._read, expected=(CannotRun,))

    def close(self) -> None:
        self._run.stop()
        self._run.join()

    def _read(self, cancel: Cancel) -> None:
        def take(line: str) -> None:
            with contextlib.suppress(ValueError):
                self._events.put(json.loads(line))

        try:
            run(
                self._argv,
                cancel=cancel,
                on_line=take,
                on_error_line=lambda _: None,
                limit=math.inf,
                grace=_END,
            )
        finally:
            self._events.put(None)

    def until_settled(self, limit: float) -> None:
        """Wait for an iteration's end. Raises what made it fail."""
        self._check(self._next("iteration.finished", deadline=time.monotonic() + limit))

    def sample(self, saved: float) -> Sample:
        """What the edit that was saved at `saved` (seconds since the epoch) cost."""
        deadline = time.monotonic() + _EDIT
        began = self._next("iteration.started", deadline=deadline)
        stages = {"detect": _ms_between(saved, began["ts"])}
        how: list[str] = []
        while True:
            event = self._next("step.finished", "iteration.finished", deadline=deadline)
            if event["type"] == "iteration.finished":
                self._check(event)
                total = _ms_between(saved, event["ts"])
                return Sample(total=total, stages=stages, how="; ".join(how))
            if event["step"] != "scan" and event["outcome"] == "done":
                stages[event["step"]] = event["ms"]
                how += [event["detail"]] if event["detail"] else []

    def _check(self, event: dict[str, Any]) -> None:
        if event["outcome"] not in {"ready", "unchanged"}:
            raise self._failure(f"an iteration ended {event['outcome']}: {event['why']}")

    def _next(self, *types: str, deadline: float) -> dict[str, Any]:
        """The service's next event of these types."""
        while True:
            self.cancel.check()
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise self._failure("nothing was served in time") from None
                continue
            if event is None:
                raise self._failure("devloop dev ended")
            if event["type"] == "diagnostic":
                self._diagnostics.append(event)
            if event["type"] in types and event.get("service") == self._service:
                return event

    def _failure(self, message: str) -> DevloopError:
        last = next((d for d in reversed(self._diagnostics) if d["severity"] == "error"), None)
        return DevloopError.of(
            Code(last["code"]) if last else Code.POD_DEADLINE,
            f"the benchmark stops: {message}",
            cause=last["message"] if last else None,
            suggestions=("see what `devloop dev` says",),
        )


def _ms_between(saved: float, timestamp: str) -> float:
    return (datetime.fromisoformat(timestamp).timestamp() - saved) * 1000


def _baseline(
    project: Project, plan: BenchPlan, notify: Callable[[str], None], cancel: Cancel
) -> tuple[str, tuple[float, ...]]:
    """How the session's own way to replace an image is called, and what it takes for images that
    are in the registry already, in milliseconds."""
    count = min(plan.edits, 10)
    with only_session(project), connect(project) as connection, contextlib.ExitStack() as stack:
        target = find_registry(project, connection)
        if not target.push:
            raise NeedsFullBuild("there is no registry to push fresh images to")
        registry = stack.enter_context(RegistryClient(target.push))
        view = ClusterView(connection)
        stack.callback(view.close)
        renderings = renderings_of(project.services.values(), namespace=connection.namespace)
        name = plan.service.name
        found = workloads_of(project, [name], renderings, connection)
        ours = stack.enter_context(_Leased(connection, found[name], project.name, cancel))
        deployments = Deployments(
            project,
            connection,
            view,
            in_place_by_default=True,
            renderings=renderings,
            releases=lambda each: releases_in(project, [each.name], connection),
        )
        stack.callback(deployments.close)
        deployments.recover()
        (status,) = read_status(connection, found[name][:1])
        image = _current(plan.service, status.images, target)
        fresh = push_variants(registry, image, count, ours.cancel)
        built = BuiltImages(project.state_dir)
        for each in fresh:
            built.add(BuiltImage.of(plan.service.name, each))
        notify(f"measuring the baseline: {count} images that are pushed already ...")
        deployer = deployments.deployer(plan.service)
        return measure(deployer, image, fresh, plan.pause, ours.cancel, lost=lambda: ours.lost)


class _Leased:
    """The leases of workloads while a block lasts. `cancel` is set with the one given and when
    another session takes one over, which is then the error of the block."""

    def __init__(
        self, connection: Connection, refs: Iterable[WorkloadRef], project: str, cancel: Cancel
    ) -> None:
        self.cancel = Cancel()
        self.lost: DevloopError | None = None
        self._outer = cancel
        self._stack = contextlib.ExitStack()
        self._leases = SessionLeases(
            connection, refs, project=project, on_lost=self._lose, report=lambda _: None
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._leases.close)
            stack.enter_context(self._outer.closing(self.cancel.set))
            self._leases.acquire(self.cancel)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self._stack.close()
        if self.lost is not None and (kind is None or isinstance(error, Cancelled)):
            raise self.lost

    def _lose(self, error: DevloopError) -> None:
        self.lost = error
        self.cancel.set()


def measure(
    deployer: Deployer,
    image: ImageRef,
    fresh: Sequence[ImageRef],
    pause: float,
    cancel: Cancel,
    *,
    lost: Callable[[], object] = lambda: None,
) -> tuple[str, tuple[float, ...]]:
    """Replace `image`, which runs, by each of `fresh` and in the end by itself again; returns as
    `_baseline`. Whatever interrupts it is raised after `image` is asked for again, unless the
    workload was `lost` to another session."""
    found: list[float] = []
    how = ""
    try:
        for each in fresh:
            cancel.wait(pause)
            began = time.monotonic()
            deployed = deployer.deploy(each, SilentReporter(), cancel)
            deployer.follow(deployed, SilentReporter(), cancel)
            found.append((time.monotonic() - began) * 1000)
            how = deployed.picked.how
    except BaseException:
        # Not followed: who interrupts does not wait for it, and its errors are not the news.
        with contextlib.suppress(DevloopError):
            if not lost():
                deployer.deploy(image, SilentReporter(), Cancel())
        raise
    deployer.follow(deployer.deploy(image, SilentReporter(), Cancel()), SilentReporter(), cancel)
    return how, tuple(found)


def _current(service: Service, images: dict[str, str], target: PushTarget) -> ImageRef:
    """What the workload runs, as an image in our registry."""
    name = target.repository(service.image)
    for image in images.values():
        where, _, digest = image.rpartition("@")
        if digest.startswith("sha256:") and where.rpartition("/")[2] == name.rpartition("/")[2]:
            pull = target.pull_repository(service.image)
            return ImageRef(repository=name, tag="", digest=digest, pull_repository=pull)
    raise NeedsFullBuild(f"no container runs {name} by digest")
