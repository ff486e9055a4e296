"""What each task does with the adapters of its service, in a worker's thread. What a scan found is
weighed by the loop, which knows the state."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.engine.back import image_gone, passed_over
from devloop.engine.facts import Awaits, CaughtUp, CauseMended, Done, NotSynced
from devloop.engine.ports import ImagesMissing
from devloop.engine.reporters import SilentReporter
from devloop.engine.state import TaskKind
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import (
        Deployer,
        GoodImages,
        Hooks,
        Reporter,
        ServiceBuilder,
        Source,
        Syncer,
        Tester,
    )
    from devloop.engine.state import Iteration, ServiceState, Task
    from devloop.model import Deployed, ImageRef, Resumed, Scan, Served


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePorts:
    """One service's adapters; no `deployer` where only images are wanted. `built` is told of each
    image, and quick. `roll_back`: put the previous image back when a rollout fails.
    `needs` are the services that it needs. `exists`: whether an image can still be pulled, as far
    as that is known; `good` keeps those to go back to for later sessions."""

    source: Source
    builder: ServiceBuilder
    deployer: Deployer | None = None
    built: Callable[[ImageRef], None] = lambda _image: None
    syncer: Syncer | None = None
    roll_back: bool = False
    needs: tuple[str, ...] = ()
    exists: Callable[[ImageRef, Cancel], bool] = lambda _image, _cancel: True
    good: GoodImages | None = None
    hooks: Hooks | None = None
    tester: Tester | None = None


def carry_out(
    ports: ServicePorts, task: Task, service: ServiceState, reporter: Reporter, cancel: Cancel
) -> Done:
    """What the engine's `Ended` says of `task`, which is no scan. Raises DevloopError and
    Cancelled."""
    if task.kind in {TaskKind.CATCH_UP, TaskKind.RECOVER, TaskKind.AWAIT_CAUSE}:
        return Done(_beside(ports, task, service, cancel))
    iteration = service.iteration
    assert iteration is not None  # noqa: S101 - only iterations have these tasks
    match task.kind:
        case TaskKind.RESUME:
            return Done(_resume(ports, iteration.scan, cancel))
        case TaskKind.SYNC:
            assert ports.syncer is not None  # noqa: S101 - only then is there a sync
            return _sync(ports, ports.syncer, iteration.scan, reporter, cancel)
        case TaskKind.BUILD:
            return _build(ports, iteration, reporter, cancel)
        case TaskKind.DEPLOY:
            return Done(_deploy(ports, task.service, iteration, reporter, cancel))
        case TaskKind.FOLLOW:
            assert iteration.deployed is not None  # noqa: S101 - the deploy came before
            served = _follow(ports, iteration, iteration.deployed, reporter, cancel)
            if ports.hooks is not None:
                ports.hooks.run("after_deploy", served.image, reporter, cancel)
            return Done(served)
        case TaskKind.ROLLBACK:
            assert iteration.deployed is not None  # noqa: S101 - the deploy came before
            _deployer(ports).rollback(iteration.deployed, reporter, cancel)
    return Done()


def _beside(
    ports: ServicePorts, task: Task, service: ServiceState, cancel: Cancel
) -> CaughtUp | Served | CauseMended | None:
    """What goes on while there is no iteration."""
    if task.kind is TaskKind.CATCH_UP:
        assert service.behind is not None  # noqa: S101 - it is what the task is about
        return _catch_up(ports, service.behind.scan, cancel)
    if task.kind is TaskKind.RECOVER:
        assert service.unserved is not None  # noqa: S101 - it is what the task is about
        scan, deployed = service.unserved.scan, service.unserved.deployed
        served = _deployer(ports).await_recovery(deployed, cancel)
        _is_good(ports, served.image, scan)
        return _contained(ports, served, scan)
    what = _deployer(ports).await_cause(cancel)
    return None if what is None else CauseMended(what)


def _contained(ports: ServicePorts, served: Served, scan: Scan) -> Served:
    if ports.syncer is not None:
        ports.syncer.image_contains(served.image, scan)
    return served


def _resume(ports: ServicePorts, scan: Scan, cancel: Cancel) -> Resumed | NotSynced:
    """What an earlier session left, where this one can go on from it."""
    assert ports.syncer is not None  # noqa: S101 - only then is there something to resume
    try:
        found = ports.syncer.resume(scan, partial(_deployer(ports).standing, cancel=cancel), cancel)
    except DevloopError as error:
        # It is in the way of a deploy as well, which says it better.
        return NotSynced(error.diagnosis.message)
    return NotSynced(found) if isinstance(found, str) else found


def _sync(
    ports: ServicePorts, syncer: Syncer, scan: Scan, reporter: Reporter, cancel: Cancel
) -> Done:
    blocker = syncer.blocker(scan)
    if blocker is None and ports.hooks is not None:
        scan = ports.hooks.before_sync(scan, reporter, cancel)
        blocker = syncer.blocker(scan)
    if blocker is not None:
        return Done(NotSynced(blocker))
    served = syncer.sync(scan, reporter, cancel)
    if ports.hooks is not None:
        ports.hooks.run("after_sync", served.image, reporter, cancel)
    return Done(served, scan=scan)


def _deployer(ports: ServicePorts) -> Deployer:
    if ports.deployer is None:
        raise RuntimeError("a session that only builds plans no deploy")
    return ports.deployer


def _build(ports: ServicePorts, iteration: Iteration, reporter: Reporter, cancel: Cancel) -> Done:
    scan = iteration.scan
    if ports.hooks is not None:
        scan = ports.hooks.before_build(scan, reporter, cancel)
    image = ports.builder.build(replace(scan, fresh=iteration.fresh), reporter, cancel)
    _examine(ports, image, reporter, cancel, again=iteration.trigger.kind == "retry")
    ports.built(image)
    return Done(image, scan=scan)


def _examine(
    ports: ServicePorts, image: ImageRef, reporter: Reporter, cancel: Cancel, *, again: bool = False
) -> None:
    """What stands between a build and whoever uses its image."""
    if ports.hooks is not None:
        ports.hooks.run("after_build", image, reporter, cancel)
    if ports.tester is not None:
        ports.tester.test(image, reporter, cancel, again=again)


def _is_good(ports: ServicePorts, image: ImageRef, scan: Scan) -> None:
    if ports.good is not None:
        ports.good.add(image, scan.fingerprint)


def _deploy(
    ports: ServicePorts, service: str, iteration: Iteration, reporter: Reporter, cancel: Cancel
) -> Deployed | Awaits:
    assert iteration.image is not None  # noqa: S101 - the build came before
    if ports.hooks is not None:
        ports.hooks.run("before_deploy", iteration.image, reporter, cancel)
    try:
        if iteration.back:
            return _go_back(ports, service, iteration, reporter, cancel)
        return _deployer(ports).deploy(iteration.image, reporter, cancel)
    except ImagesMissing as missing:
        return Awaits(missing.services)


def _go_back(
    ports: ServicePorts, service: str, iteration: Iteration, reporter: Reporter, cancel: Cancel
) -> Deployed:
    """Deploy the best of the images to go back to that can still be pulled."""
    for way in iteration.back:
        cancel.check()
        if ports.exists(way.image, cancel):
            break
        if way is not iteration.back[-1]:
            reporter.diagnostic(passed_over(way))
    else:
        raise image_gone(service, *(way.name for way in iteration.back))
    untouched = None
    if ports.syncer is not None:
        untouched = ports.syncer.image_again(way.image, way.scan)
    return _deployer(ports).go_back(way.image, untouched, reporter, cancel)


def _follow(
    ports: ServicePorts,
    iteration: Iteration,
    deployed: Deployed,
    reporter: Reporter,
    cancel: Cancel,
) -> Served:
    if iteration.back:
        served = _deployer(ports).follow(deployed, reporter, cancel)
        if ports.good is not None:
            ports.good.went_back(served.image)
        return served
    scan = iteration.scan
    served = _contained(ports, _deployer(ports).follow(deployed, reporter, cancel), scan)
    _is_good(ports, served.image, scan)
    # Where the image is the one of before, the container may be too, with files that nobody knows.
    if ports.syncer is None or all(each.previous for each in deployed.workloads):
        return served
    strays = ports.syncer.strays(cancel)
    if not strays:
        return served
    reporter.diagnostic(
        Diagnosis(
            code=Code.SYNC_FAILED,
            severity="info",
            message=f"{', '.join(strays)}: another pod takes its place",
            cause="files were written into it by somebody else, and which ones is not known",
        )
    )
    _deployer(ports).recreate(deployed, strays, cancel)
    return _deployer(ports).follow(deployed, reporter, cancel)


def _catch_up(ports: ServicePorts, scan: Scan, cancel: Cancel) -> CaughtUp:
    # The hooks before a build ran before the sync.
    image = ports.builder.build(scan, SilentReporter(), cancel)
    _examine(ports, image, SilentReporter(), cancel)
    if ports.syncer is not None:
        ports.syncer.image_contains(image, scan)
    _is_good(ports, image, scan)
    reason = _deployer(ports).adopt(image, cancel)
    return CaughtUp(image, adopted=reason is None, reason=reason or "")
