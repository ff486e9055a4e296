"""What the engine knows: the state, and the tasks that follow from it. Facts change it.

Only data. `reduce` makes the next state from a fact, `plan` says which tasks a state wants to be
running; the loop starts and cancels workers until the two agree.
"""

from __future__ import annotations

import enum
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from devloop.engine.facts import StopRequested
    from devloop.errors import Code, Diagnosis, ExitStatus
    from devloop.events import Trigger
    from devloop.model import (
        Deployed,
        Fingerprint,
        ImageRef,
        Scan,
        Step,
    )


class TaskKind(enum.StrEnum):
    """What a worker can be doing for a service."""

    SCAN = "scan"
    RESUME = "resume"
    SYNC = "sync"
    BUILD = "build"
    DEPLOY = "deploy"
    FOLLOW = "follow"
    ROLLBACK = "rollback"
    CATCH_UP = "catch-up"
    RECOVER = "recover"
    AWAIT_CAUSE = "await-cause"


# After so many iterations in a row that a newer change ended before their deploy, one goes through.
SUPERSEDED = 3

WRITES = frozenset({TaskKind.SYNC, TaskKind.DEPLOY, TaskKind.ROLLBACK})


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one worker. `key` is the scan's number or the iteration's; `attempt` counts the
    tries after a hold, so that every run is a task of its own."""

    kind: TaskKind
    service: str
    key: int
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.kind}-{self.service}-{self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dirty:
    """The disk may have changed. Times are the loop's clock in seconds; `paths` is None when
    anything may have changed. `asks` are the requests for another try that the next look answers,
    by number; with `again` there is one in any case. `keys` are those of devloop.yaml that have
    other values. `named`: somebody named a path, which is no audit. `images` are the services that
    this one needs and that have another image now."""

    first: float
    last: float
    paths: frozenset[Path] | None
    asks: tuple[int, ...] = ()
    again: bool = False
    keys: tuple[str, ...] = ()
    named: bool = False
    images: tuple[str, ...] = ()

    @property
    def wished(self) -> bool:
        """Whether somebody wants to have what is on disk."""
        return bool(self.asks or self.keys or self.named)


@dataclass(frozen=True, slots=True)
class OpenStep:
    step: Step
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a service waits, in words for the user. `until` is the loop's clock in seconds when it
    ends by itself, None when something else ends it. `code` is that of the error that is waited
    out, `attempt` how many tries there were; `on` the service that it needs and that is waited
    for, "" for anything else. One that `looks` ends when somebody does something elsewhere, which
    is looked for every few seconds: it is reported once."""

    reason: str
    until: float | None = None
    on: str = ""
    code: Code | None = None
    attempt: int = 1
    looks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One try to get what is on disk served. `stage` is the task it is at; `hold` is set while it
    waits for its next try; `failure` once it failed and only the rollback is left. `let_through`
    is not None for one that a newer change does not supersede before it is deployed: the paths
    that keep changing, which do not even then. `awaits` are the services whose images it needs.
    `fresh`: its image is to be built in full, whatever is remembered. `back` makes it a rollback:
    the images to go back to, best first; `scan` is then what the first of them was made of."""

    number: int
    trigger: Trigger
    scan: Scan
    since: float
    stage: TaskKind = TaskKind.BUILD
    attempt: int = 0
    hold: Hold | None = None
    let_through: frozenset[str] | None = None
    open_steps: tuple[OpenStep, ...] = ()
    image: ImageRef | None = None
    deployed: Deployed | None = None
    failure: Failure | None = None
    awaits: frozenset[str] = frozenset()
    fresh: bool = False
    back: tuple[GoodImage, ...] = ()

    def task(self, service: str) -> Task:
        return Task(self.stage, service, self.number, self.attempt)

    def goes_through(self, scan: Scan) -> bool:
        """Whether what `scan` found does not supersede it: newest wins, but not for ever. Once it
        is deployed, only what kept changing anyway is no reason to break its rollout off."""
        noise = self.let_through
        return noise is not None and (self.deployed is None or noise.issuperset(scan.changed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last iteration failed, and when (the loop's clock in seconds); no retry until the
    fingerprint differs or somebody asks for one, with a save say. `fingerprint` is None when the
    disk itself could not be read. `awaited`: what was missing in the cluster may come, and then it
    is tried again."""

    fingerprint: Fingerprint | None
    iteration: int
    step: Step
    diagnosis: Diagnosis
    at: float = 0.0
    awaited: bool = False

    def task(self, service: str) -> Task:
        return Task(TaskKind.AWAIT_CAUSE, service, self.iteration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The last image that pods were seen to run, and the iteration that put it there."""

    fingerprint: Fingerprint
    iteration: int
    image: ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodImage:
    """An image that was served and ready, or that holds what was: one to go back to. `iteration`
    put it there, None for one of an earlier session; `scan` is what it was made of, where that is
    known."""

    image: ImageRef
    fingerprint: Fingerprint
    iteration: int | None = None
    scan: Scan | None = None

    @property
    def name(self) -> str:
        return self.image.short if self.iteration is None else f"#{self.iteration}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What file sync brought to the containers and the image does not hold: `scan`, since the
    iteration `key`. `attempt` counts the tries to bring the image up to it."""

    scan: Scan
    key: int
    since: float
    attempt: int = 0

    def task(self, service: str) -> Task:
        return Task(TaskKind.CATCH_UP, service, self.key, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """What the failed iteration `key` deployed and left in the cluster: its pods may become ready
    yet, since whatever they miss may come. Looked at on until another iteration begins."""

    scan: Scan
    key: int
    deployed: Deployed
    since: float
    attempt: int = 0

    def task(self, service: str) -> Task:
        return Task(TaskKind.RECOVER, service, self.key, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """`count` iterations in a row, the last on `last`, that a change of `path` alone began."""

    path: str = ""
    count: int = 0
    last: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """`proof` stays when a later write makes it doubtful; `served` is then None. `applied` says
    that the last deploy came to its end, `fresh` that the user wants a full build and has not got
    it yet. `syncs` says that a change is first tried as a sync of files into what runs; `resumes`,
    that nothing was deployed yet, so that what runs may be an earlier session's. `superseded` has,
    for each iteration in a row that a newer change ended before it was deployed, the paths that had
    changed; `noisy` is the path last warned of, `streak` the one that begins iterations at the
    moment, `not_synced` the reason last given for a change that could not be synced. `taken` is
    what somebody else changed of what runs, until a save comes that takes it back. `made` is the
    image that was built last, `offers` the one that pods to come start with; `uses` are those of
    other services that the last deploy ran, and `followed` what they offered when this service last
    began an iteration for that, all by service. Images are as they are written into a pod. `good`
    are the images to go back to, newest last; `back` is why nothing is deployed since somebody went
    back, "" when nobody did or a save came since. `needs` are the services that it needs,
    `builds_on` those of them whose images its build uses, as the last look at the disk found;
    `images` has the reference of what was built, by the fingerprint of what it was built from, for
    builds that use it, and `no_image` is why the one of now could not be made beside the
    iterations. `last` is the number of its last iteration. One that is `leaving` was taken out of
    devloop.yaml and is only here until its last worker has ended."""

    name: str
    roll_back: bool = False
    syncs: bool = False
    resumes: bool = False
    behind: Behind | None = None
    unserved: Unserved | None = None
    fresh: bool = False
    dirty: Dirty | None = None
    looking_at: Dirty | None = None
    scans: int = 0
    scan: Scan | None = None
    served: Fingerprint | None = None
    applied: bool = False
    proof: Proof | None = None
    failure: Failure | None = None
    iteration: Iteration | None = None
    superseded: tuple[tuple[str, ...], ...] = ()
    noisy: str = ""
    streak: Streak = field(default_factory=Streak)
    not_synced: str = ""
    taken: Diagnosis | None = None
    made: str = ""
    offers: str = ""
    uses: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    followed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    good: tuple[GoodImage, ...] = ()
    back: str = ""
    needs: tuple[str, ...] = ()
    builds_on: frozenset[str] = frozenset()
    images: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    no_image: str = ""
    last: int = -1
    running: frozenset[Task] = frozenset()
    leaving: bool = False

    @property
    def scanning(self) -> Task | None:
        return Task(TaskKind.SCAN, self.name, self.scans) if self.looking_at else None

    @property
    def passing(self) -> frozenset[str]:
        """The paths that keep changing, where the next change lets an iteration through."""
        if len(self.superseded) < SUPERSEDED - 1:
            return frozenset()
        return frozenset(path for paths in self.superseded for path in paths)

    @property
    def settled(self) -> bool:
        """Nothing is known or suspected to be different from what was last decided."""
        return self.dirty is None and self.looking_at is None and self.iteration is None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """`mode` decides what a failure means: `dev` waits for the next change, `run` ends. `until` is
    what an iteration ends with: after `build` and `test` nothing is deployed. `paused` is why
    nothing is begun, in words for the user, "" when it is not paused."""

    mode: Literal["dev", "run"]
    until: Literal["build", "test", "rollout"] = "rollout"
    root: Path
    services: Mapping[str, ServiceState]
    next_iteration: int = 0
    paused: str = ""
    stop: StopRequested | None = None
    statuses: Mapping[str, ExitStatus] = field(default_factory=lambda: MappingProxyType({}))


def initial(
    services: Mapping[str, bool],
    *,
    mode: Literal["dev", "run"],
    until: Literal["build", "test", "rollout"] = "rollout",
    root: Path,
    now: float,
    syncs: Collection[str] = (),
    good: Mapping[str, tuple[GoodImage, ...]] = MappingProxyType({}),
    needs: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> State:
    """A state in which every service is to be looked at. `services` maps a name to whether a
    failed rollout is rolled back; `syncs` are those with file sync, `good` the images to go back to
    that earlier sessions left, `needs` what each of them needs."""
    return State(
        mode=mode,
        until=until,
        root=root,
        services={
            name: begun(
                name,
                roll_back=roll_back,
                syncs=name in syncs,
                good=good.get(name, ()),
                needs=needs.get(name, ()),
                now=now,
            )
            for name, roll_back in services.items()
        },
    )


def begun(
    name: str,
    *,
    roll_back: bool,
    syncs: bool,
    good: tuple[GoodImage, ...] = (),
    needs: tuple[str, ...] = (),
    now: float,
) -> ServiceState:
    """A service that is to be looked at for the first time."""
    return ServiceState(
        name=name,
        roll_back=roll_back,
        syncs=syncs,
        resumes=syncs,
        good=good,
        needs=needs,
        dirty=Dirty(first=now, last=float("-inf"), paths=None),
    )
