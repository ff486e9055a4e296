"""Services whose manifests run the images of others: they wait for them, and follow them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from devloop.engine.facts import Awaits, Done, Ended, Failed, Started
from devloop.engine.plan import plan
from devloop.engine.reduce import reduce
from devloop.engine.state import Iteration, Proof, TaskKind, initial
from devloop.errors import Code, Diagnosis
from devloop.events import IterationFinished, IterationStarted, Trigger
from devloop.model import (
    Deployed,
    DeployedWorkload,
    Fingerprint,
    ImageRef,
    Outcome,
    Scan,
    Served,
    Snapshot,
    WorkloadRef,
)

if TYPE_CHECKING:
    from devloop.engine.state import ServiceState, State

SCAN = Scan(fingerprint=Fingerprint("b", "d"), snapshot=Snapshot(entries={}, digest="s", stamp="s"))
ONE, TWO = (ImageRef(repository="r/tools", tag=t, digest=f"sha256:{t}") for t in "12")
WEB = ImageRef(repository="r/web", tag="w", digest="sha256:w")


def deployed(uses: dict[str, str]) -> Deployed:
    ref = WorkloadRef("deployment", "web", "dev")
    each = DeployedWorkload(workload=ref, uid="u", generation=1, image=WEB, containers=("web",))
    return Deployed(image=WEB, workloads=(each,), uses=uses)


def at(stage: TaskKind, number: int, **more: Any) -> Iteration:
    trigger = Trigger(kind="files")
    return Iteration(number=number, trigger=trigger, scan=SCAN, since=0.0, stage=stage, **more)


def two(mode: Any = "dev", **services: dict[str, Any]) -> State:
    state = initial({"web": False, "tools": False}, mode=mode, root=Path("/p"), now=0.0)
    found = {
        name: replace(service, dirty=None, scan=SCAN, **services.get(name, {}))
        for name, service in state.services.items()
    }
    return replace(state, services=found, next_iteration=5)


def waiting(mode: Any = "dev", **tools: Any) -> State:
    """`web` has found that it needs the image of `tools`."""
    web = at(TaskKind.DEPLOY, 0, image=WEB)
    state = two(mode, web={"iteration": web}, tools=tools)
    task = web.task("web")
    state, _ = reduce(state, Started(task), 1.0)
    state, _ = reduce(state, Ended(task, Done(Awaits(frozenset({"tools"})))), 1.0)
    return state


def test_a_deploy_is_held_until_the_other_image_is_built() -> None:
    build = at(TaskKind.BUILD, 1)
    state = waiting(iteration=build)
    assert plan(state, 2.0).holds["web"].reason == "waits for the image of tools"
    state, _ = reduce(state, Started(build.task("tools")), 2.0)
    state, _ = reduce(state, Ended(build.task("tools"), Done(ONE)), 2.0)
    tasks = {(task.kind, task.service) for task in plan(state, 2.0).tasks}
    assert (TaskKind.DEPLOY, "web") in tasks


def failing() -> Any:
    build = at(TaskKind.BUILD, 1)
    diagnosis = Diagnosis(code=Code.BUILD_RUN_FAILED, message="RUN exited 1")
    return build, [Started(build.task("tools")), Ended(build.task("tools"), Failed(diagnosis))]


def test_in_dev_it_goes_on_waiting_and_says_that_the_other_failed() -> None:
    build, facts = failing()
    state = waiting(iteration=build)
    for fact in facts:
        state, _ = reduce(state, fact, 2.0)
    reason = plan(state, 2.0).holds["web"].reason
    assert reason == "waits for the image of tools, which failed: RUN exited 1"


def test_a_run_does_not_wait_for_what_failed() -> None:
    build, facts = failing()
    state, events = waiting("run", iteration=build), []
    for fact in facts:
        state, found = reduce(state, fact, 2.0)
        events += found
    ends = {e.service: e for e in events if isinstance(e, IterationFinished)}
    assert ends["web"].outcome is Outcome.FAILED
    assert "runs the image of tools as well, which failed" in ends["web"].why


def served(image: str, **more: Any) -> dict[str, Any]:
    proof = Proof(fingerprint=SCAN.fingerprint, iteration=0, image=WEB)
    return {"served": SCAN.fingerprint, "proof": proof, "offers": image, **more}


def tools_become(image: ImageRef, uses: str) -> tuple[ServiceState, list[Any]]:
    """`web` as it is after `tools` is served with another image."""
    follow = at(TaskKind.FOLLOW, 1, image=image, deployed=deployed({}))
    web = served(WEB.pinned, uses=MappingProxyType({"tools": uses}))
    state = two(web=web, tools=served(ONE.pinned, iteration=follow))
    task = follow.task("tools")
    state, _ = reduce(state, Started(task), 1.0)
    state, events = reduce(state, Ended(task, Done(Served(image=image, pods=()))), 1.0)
    return state.services["web"], events


def test_who_uses_an_image_follows_it() -> None:
    web, events = tools_become(TWO, ONE.pinned)
    assert web.iteration is not None
    assert web.iteration.stage is TaskKind.BUILD
    (started,) = (e for e in events if isinstance(e, IterationStarted))
    assert (started.service, started.trigger.kind, started.trigger.paths) == (
        "web",
        "image",
        ("tools",),
    )


def test_who_has_it_already_does_not() -> None:
    web, _ = tools_become(TWO, TWO.pinned)
    assert web.iteration is None


@pytest.mark.parametrize("uses", [ONE.pinned, TWO.pinned])
def test_an_image_is_followed_once(uses: str) -> None:
    """Whatever the deploy made of it: a failure begins no other try by itself."""
    web, _ = tools_become(TWO, ONE.pinned)
    state = two(
        web=served(WEB.pinned, uses=MappingProxyType({"tools": uses}), followed=web.followed),
        tools=served(TWO.pinned),
    )
    scan = Ended(at(TaskKind.FOLLOW, 9).task("tools"), Done(None))
    state, _ = reduce(state, scan, 2.0)
    assert state.services["web"].iteration is None
