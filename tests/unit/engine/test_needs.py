"""Services that others need: what waits for them, what follows them, and what fails with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devloop.engine.facts import Done, Ended, Failed, Hinted, Started
from devloop.engine.needs import images_for
from devloop.engine.plan import plan
from devloop.engine.reduce import reduce
from devloop.engine.state import Task, TaskKind, initial
from devloop.errors import Code, Diagnosis, ExitStatus
from devloop.events import Event, IterationFinished, IterationStarted
from devloop.model import Deployed, Fingerprint, ImageRef, Outcome, Scan, Served, Snapshot

SCAN, BUILD, DEPLOY, FOLLOW = TaskKind.SCAN, TaskKind.BUILD, TaskKind.DEPLOY, TaskKind.FOLLOW


def image_of(service: str, fingerprint: str) -> ImageRef:
    digest = f"sha256:{fingerprint}-dev"
    return ImageRef(
        repository=f"r/{service}", tag="t", digest=digest, plain=f"sha256:{fingerprint}"
    )


class Session:
    """Plays the loop; `disk` is what a look finds, `uses` whose images a service's build uses."""

    def __init__(self, needs: dict[str, tuple[str, ...]], *, mode: Any = "dev") -> None:
        self.needs = needs
        self.uses = dict(needs)
        self.disk = dict.fromkeys(needs, 0)
        self.events: list[Event] = []
        self.now = 0.0
        names = dict.fromkeys(needs, False)
        self.state = initial(names, mode=mode, root=Path("/p"), now=0.0, needs=needs)
        self.running: dict[Task, dict[str, str]] = {}
        self.follow()

    def tell(self, fact: Any) -> None:
        self.state, events = reduce(self.state, fact, self.now)
        self.events += events

    def follow(self) -> None:
        wanted = plan(self.state, self.now).tasks
        self.running = {t: told for t, told in self.running.items() if t in wanted}
        for task in sorted(wanted - self.running.keys(), key=str):
            self.tell(Started(task))
            self.running[task] = dict(images_for(self.state, self.state.services[task.service]))

    @property
    def doing(self) -> set[tuple[str, TaskKind]]:
        return {(task.service, task.kind) for task in self.running}

    @property
    def holds(self) -> dict[str, str]:
        return {name: hold.reason for name, hold in plan(self.state, self.now).holds.items()}

    def begun(self, service: str) -> list[tuple[str, tuple[str, ...]]]:
        found = [e for e in self.events if isinstance(e, IterationStarted) and e.service == service]
        return [(e.trigger.kind, e.trigger.paths) for e in found]

    def ended(self, service: str) -> list[Outcome]:
        found = [e for e in self.events if isinstance(e, IterationFinished)]
        return [e.outcome for e in found if e.service == service]

    def save(self, service: str, content: int) -> None:
        self.disk[service] = content
        self.tell(Hinted(service=service, paths=frozenset({Path(f"/p/{service}")})))
        self.now += 1
        self.follow()

    def do(self, service: str, kind: TaskKind, result: Any = None) -> None:
        """What `service` is doing comes to its end, well if nothing else is said."""
        (task,) = (t for t in self.running if (t.service, t.kind) == (service, kind))
        told = self.running.pop(task)
        value = self._value(service, kind, told)
        self.tell(Ended(task, result or Done(value)))
        self.now += 1
        self.follow()

    def do_all(self, service: str) -> None:
        for kind in (SCAN, BUILD, DEPLOY, FOLLOW):
            self.do(service, kind)

    def _value(self, service: str, kind: TaskKind, told: dict[str, str]) -> Any:
        iteration = self.state.services[service].iteration
        if kind is SCAN:
            needs = {name: told[name] for name in self.uses[service]}
            build = "/".join((f"{service}{self.disk[service]}", *needs.values()))
            empty = Snapshot(entries={}, digest=build, stamp=build)
            return Scan(fingerprint=Fingerprint(build, ""), snapshot=empty, needs=needs)
        assert iteration is not None
        image = iteration.image or image_of(service, iteration.scan.fingerprint.build)
        if kind is BUILD:
            return image
        return (
            Deployed(image=image, workloads=()) if kind is DEPLOY else Served(image=image, pods=())
        )


BROKEN = Failed(Diagnosis(code=Code.BUILD_RUN_FAILED, message="RUN exited 1"))
TWO: dict[str, tuple[str, ...]] = {"api": ("base",), "base": (), "web": ()}


def served() -> Session:
    session = Session(TWO)
    session.do("api", SCAN)
    for name in ("base", "web", "api"):
        session.do_all(name)
    assert session.running == {}
    return session


def test_what_is_needed_is_built_first_and_what_is_not_related_does_not_wait() -> None:
    session = Session(TWO)
    assert session.doing == {("api", SCAN), ("base", SCAN), ("web", SCAN)}
    for name in TWO:
        session.do(name, SCAN)
    assert session.doing == {("base", BUILD), ("web", BUILD)}
    assert session.holds == {"api": "waits for the image of base"}
    session.do("base", BUILD)
    assert ("api", SCAN) in session.doing
    session.do("api", SCAN)
    session.do("api", BUILD)
    assert session.holds["api"] == "waits for base to be ready"
    session.do("base", DEPLOY)
    session.do("base", FOLLOW)
    assert ("api", DEPLOY) in session.doing
    session.do("api", DEPLOY)
    session.do("api", FOLLOW)
    assert session.begun("api") == [("start", ())]
    scan = session.state.services["api"].scan
    assert scan is not None
    # As it was built, not as devloop deploys it.
    assert scan.needs == {"base": "r/base@sha256:base0"}


def test_another_image_of_a_need_is_one_more_build_of_what_uses_it() -> None:
    session = served()
    session.save("base", 1)
    session.do_all("base")
    assert session.doing == {("api", SCAN)}
    session.do_all("api")
    assert session.begun("api")[1:] == [("image", ("base",))]
    assert session.begun("web")[1:] == []


def test_a_disk_that_cannot_be_read_is_not_looked_at_again_for_another_image() -> None:
    session = served()
    session.save("base", 1)
    session.do_all("base")
    missing = Failed(Diagnosis(code=Code.CONFIG_DOCKERFILE_MISSING, message="no Dockerfile"))
    session.do("api", SCAN, missing)
    assert session.running == {}
    session.save("api", 1)
    session.do_all("api")
    scan = session.state.services["api"].scan
    assert scan is not None
    assert scan.needs == {"base": "r/base@sha256:base1"}


def test_the_same_image_again_builds_nothing() -> None:
    session = served()
    session.save("base", 1)
    session.do("base", SCAN)
    session.do("base", BUILD, Done(image_of("base", "base0")))
    session.do("base", DEPLOY)
    session.do("base", FOLLOW)
    assert (session.running, session.begun("api")[1:]) == ({}, [])


def test_saves_of_both_are_one_build_of_each() -> None:
    session = served()
    session.save("base", 1)
    session.save("api", 1)
    assert session.doing == {("base", SCAN)}
    session.do_all("base")
    session.do_all("api")
    assert session.running == {}
    assert [len(session.begun(name)) for name in ("base", "api")] == [2, 2]


def test_a_save_of_the_need_supersedes_what_is_built_from_it() -> None:
    session = served()
    session.save("api", 1)
    session.do("api", SCAN)
    session.save("base", 1)
    session.do("api", BUILD)
    assert session.holds["api"] == "waits for the image of base"
    session.do_all("base")
    session.do_all("api")
    assert session.ended("api")[1:] == [Outcome.CANCELLED, Outcome.READY]


def test_a_need_that_fails_holds_what_uses_it_and_leaves_it_served() -> None:
    session = served()
    before = session.state.services["api"].served
    session.save("base", 1)
    session.do("base", SCAN)
    session.do("base", BUILD, BROKEN)
    reason = "waits for the image of base, which failed: RUN exited 1"
    assert session.holds == {"api": reason}
    session.save("api", 1)
    assert (session.running, session.holds) == ({}, {"api": reason})
    assert session.state.services["api"].served == before
    session.save("base", 0)
    session.do("base", SCAN)
    # The image of before is that of what is on disk again: nothing of it is built.
    assert session.doing == {("api", SCAN)}
    session.do_all("api")
    assert session.holds == {}


def test_a_need_that_no_build_uses_is_only_waited_for_until_it_is_ready() -> None:
    session = Session(TWO)
    session.uses["api"] = ()
    session.do("api", SCAN)
    session.do("api", BUILD)
    assert session.holds == {"api": "waits for base to be ready"}
    session.do_all("base")
    session.do("api", DEPLOY)
    session.do("api", FOLLOW)
    session.save("base", 1)
    session.save("api", 1)
    assert session.doing == {("api", SCAN), ("base", SCAN), ("web", SCAN)}
    session.do("base", SCAN)
    session.do("base", BUILD, BROKEN)
    # What failed left the one of before as it is.
    session.do_all("api")
    assert len(session.begun("api")) == 2


def test_a_need_that_is_not_ready_after_all_holds_the_deploy_with_its_reason() -> None:
    session = Session(TWO)
    for name in ("api", "base"):
        session.do(name, SCAN)
    session.do("base", BUILD)
    session.do("base", DEPLOY)
    crash = Failed(Diagnosis(code=Code.POD_CRASH_LOOP, message="it crashes"))
    session.do("base", FOLLOW, crash)
    session.do("api", SCAN)
    session.do("api", BUILD)
    assert session.holds == {"api": "waits for base to be ready, which failed: it crashes"}


@pytest.mark.parametrize("uses", [("base",), ()], ids=["its image", "only it"])
def test_a_run_fails_with_what_it_needs(uses: tuple[str, ...]) -> None:
    session = Session({**TWO, "top": ("api",)}, mode="run")
    session.uses["api"] = uses
    for name in ("api", "base", "top"):
        session.do(name, SCAN)
    session.do("base", BUILD, BROKEN)
    if not uses:
        for name, kind in (("api", BUILD), ("top", SCAN), ("top", BUILD)):
            session.do(name, kind)
    session.do_all("web")
    why = [e for e in session.events if isinstance(e, IterationFinished) and e.service == "top"]
    assert [e.why for e in why] == [
        "top needs api, which failed: api needs base, which failed: RUN exited 1"
    ]
    assert session.ended("api") == [Outcome.FAILED]
    assert all(service.settled for service in session.state.services.values())
    assert session.state.statuses["top"] is ExitStatus.FAILED
    assert session.state.statuses["web"] is ExitStatus.DONE
