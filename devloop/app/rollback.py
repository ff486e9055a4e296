"""`devloop rollback` where no session runs: from what sessions wrote down, by the same deploy, with
the leases of the workloads held meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from devloop.app import connect, find_registry, only_session
from devloop.app.good_images import ServiceImages, image_exists
from devloop.app.preflight import watch_workloads
from devloop.app.session import chosen
from devloop.app.workloads import releases_in, renderings_for, workloads_of
from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.deploy.recovery import recover_abandoned
from devloop.cluster.deploy.session_lease import SessionLeases
from devloop.cluster.deploy.status import read_status
from devloop.control.session_file import read_session
from devloop.engine.back import image_gone, nothing_to_go_back_to, passed_over
from devloop.errors import Code, DevloopError
from devloop.model import Step, StepOutcome
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.cluster.api.connection import Connection
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project
    from devloop.engine.state import GoodImage
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, WorkloadRef


def roll_back(loaded: LoadedProject, service: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Serve the last good image of a service, "" for the only one; returns once it is served, with
    what was done as plain data. `say` gets lines for the user. Errors: usage/no-rollback,
    usage/arguments, env/session-running, safety/*, registry/*, cluster/*, pod/*."""
    project, cancel = loaded.project, Cancel()
    name = _chosen(project, service)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_session(project))
        connection = stack.enter_context(connect(project))
        renderings = renderings_for(
            project.services.values(), show=loaded.show, namespace=connection.namespace
        )
        refs = workloads_of(project, [name], renderings, connection)[name]
        good = ServiceImages(project.state_dir, connection.context, connection.namespace, name)
        ways = _ways_back(project, good, _live_images(connection, refs), name)
        if not ways:
            raise nothing_to_go_back_to(name)
        report = partial(_say, say)
        stack.enter_context(leases_of(project, connection, refs, report, cancel))
        target = find_registry(project, connection)
        registry = None
        if target.push:
            registry = stack.enter_context(RegistryClient(target.push))
        way = _first_there(name, ways, partial(image_exists, registry), report, cancel)
        say(f"{name}: back to {way.image.pinned}")
        view = watch_workloads(refs, connection, stack)
        deployments = Deployments(
            project,
            connection,
            view,
            renderings=renderings,
            releases=lambda each: releases_in(project, [each.name], connection),
        )
        stack.callback(deployments.close)
        for diagnosis in (*deployments.recover(), *recover_abandoned(connection, refs, own=True)):
            report(diagnosis)
        deployer, reporter = deployments.deployer(project.services[name]), _StepLines(say)
        # What is in the containers besides their image, nobody knows who was not there.
        deployed = deployer.go_back(way.image, frozenset(), reporter, cancel)
        served = deployer.follow(deployed, reporter, cancel)
        good.went_back(way.image, by_hand=True)
    say(f"{name}: serving {way.image.short}; the next `devloop dev` deploys what is on disk")
    return {
        "service": name,
        "image": way.image.pinned,
        "digest": way.image.digest,
        "pods": list(served.pods),
        "ms": round((time.monotonic() - began) * 1000),
    }


@contextlib.contextmanager
def leases_of(
    project: Project,
    connection: Connection,
    refs: Iterable[WorkloadRef],
    report: Callable[[Diagnosis], None],
    cancel: Cancel,
) -> Iterator[SessionLeases]:
    """Have the leases of the workloads; `cancel` is set when one is lost. Errors: safety/lease
    where a session works with them, or takes them over."""
    taken: list[DevloopError] = []

    def lost(error: DevloopError) -> None:
        taken.append(error)
        cancel.set()

    leases = SessionLeases(
        connection,
        [ref for ref in refs if ref.serves],
        project=project.name,
        on_lost=lost,
        report=report,
    )
    with contextlib.closing(leases):
        try:
            leases.acquire(cancel)
            yield leases
        except Cancelled:
            if taken:
                raise taken[0] from None
            raise


def _chosen(project: Project, service: str) -> str:
    if service:
        return next(iter(chosen(project, (service,))))
    if len(project.services) == 1:
        return next(iter(project.services))
    raise DevloopError.of(
        Code.USAGE_ARGUMENTS,
        "which service is to go back is not said, and no session runs that knows what changed last",
        cause="services: " + ", ".join(project.services),
        suggestions=("name it: devloop rollback SERVICE",),
    )


def _live_images(connection: Connection, refs: Iterable[WorkloadRef]) -> frozenset[str]:
    found = (status.images.values() for status in read_status(connection, refs))
    return frozenset(chain(*found))


def _ways_back(
    project: Project, images: ServiceImages, live: frozenset[str], service: str
) -> tuple[GoodImage, ...]:
    """As `engine.back.ways_back`, by what the workloads name and what the last session wrote."""
    good = images.known()
    at = next((n for n, each in reversed([*enumerate(good)]) if each.image.pinned in live), None)
    if at is None:
        return good[::-1]
    session: Mapping[str, Any] = read_session(project.state_dir) or {}
    last = (session.get("services") or {}).get(service)
    if last is not None and not images.by_hand:
        served = (last.get("serving") or {}).get("fingerprint")
        if served != good[at].fingerprint.whole:
            # It is not what the pods had last: that was broken, or newer than its image.
            at += 1
    return good[:at][::-1]


def _first_there(
    service: str,
    ways: tuple[GoodImage, ...],
    exists: Callable[[ImageRef, Cancel], bool],
    report: Callable[[Diagnosis], None],
    cancel: Cancel,
) -> GoodImage:
    for way in ways:
        if exists(way.image, cancel):
            return way
        if way is not ways[-1]:
            report(passed_over(way))
    raise image_gone(service, *(way.name for way in ways))


def _say(say: Callable[[str], None], diagnosis: Diagnosis) -> None:
    say(f"{diagnosis.severity}[{diagnosis.code}]: {diagnosis.message}")


class _StepLines:
    """A `Reporter` for a terminal: a line for each step that came to its end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def started(self, step: Step) -> None: ...

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None: ...

    def finished(self, step: Step, outcome: StepOutcome, detail: str = "") -> None:
        self._say(f"  {step:<8} {'' if outcome is StepOutcome.DONE else f'{outcome} '}{detail}")

    def diagnostic(self, diagnosis: Diagnosis) -> None:
        _say(self._say, diagnosis)
