"""The event stream: everything devloop reports, as typed values with one JSON form.

Users, editors and tests read these and nothing else. A type or a key may be added; neither changes
its meaning while `v` is 1. `seq` and `ts` are the bus's to give (see engine/bus.py).
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Diagnosis

if TYPE_CHECKING:
    from devloop.model import Outcome, Step, StepOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `type` is the name on the wire."""

    type: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(Event):
    """`context`, `namespace` and `registry` are empty where a session has none: `build` asks no
    cluster. `platform` is what images are built for, where that is known before."""

    type: ClassVar[str] = "session.started"
    version: str
    mode: Literal["dev", "run", "build", "test", "deploy"]
    project: str
    root: str
    context: str
    namespace: str
    registry: str
    services: tuple[str, ...]
    pid: int
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """Always the last event."""

    type: ClassVar[str] = "session.ended"
    exit_code: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPaused(Event):
    """Nothing is begun until `session.resumed`; what was under way comes to the end of its step."""

    type: ClassVar[str] = "session.paused"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResumed(Event):
    type: ClassVar[str] = "session.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchChanged(Event):
    """`paths` are relative to the project; at most 20 are listed, `count` counts all."""

    type: ClassVar[str] = "watch.changed"
    service: str
    paths: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRescanned(Event):
    type: ClassVar[str] = "watch.rescanned"
    service: str
    reason: str
    files: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Why an iteration began. At most 20 paths are listed, `count` counts all. `retry` is another
    try with the same bytes, because somebody saved them or asked for it; `recovered` says that the
    pods of a failed rollout became ready by themselves; `image` that the services in `paths` have
    another image, which the manifests use as well; `config` that the keys of devloop.yaml in
    `paths` have other values; `rollback` that somebody wants the last good image back: that of
    iteration `to`, None for one of an earlier session."""

    kind: Literal["start", "files", "retry", "recovered", "image", "config", "rollback"]
    paths: tuple[str, ...] = ()
    count: int = 0
    to: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerTaken(Event):
    """The iteration `iter` is the other try or the rollback that somebody asked for with the
    requests `ids`. One that is superseded is followed by the one that is."""

    type: ClassVar[str] = "trigger.taken"
    service: str
    iter: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationStarted(Event):
    type: ClassVar[str] = "iteration.started"
    iter: int
    service: str
    trigger: Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    type: ClassVar[str] = "step.started"
    iter: int
    service: str
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress(Event):
    """Without `iter` of a scan: only its end shows whether an iteration begins."""

    type: ClassVar[str] = "step.progress"
    iter: int | None
    service: str
    step: Step
    message: str
    current: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """`detail` says in a few words what came of it: "12 steps, 9 cached", "1/1 ready"."""

    type: ClassVar[str] = "step.finished"
    iter: int
    service: str
    step: Step
    outcome: StepOutcome
    ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the cluster serves now, as far as devloop has proof of it. `fingerprint` is that of what
    was on disk, see `model.Fingerprint.whole`."""

    iter: int
    image: str
    digest: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationFinished(Event):
    """`digest` is this iteration's image, if it got that far; `serving` what runs now."""

    type: ClassVar[str] = "iteration.finished"
    iter: int
    service: str
    outcome: Outcome
    ms: float
    digest: str | None
    serving: Serving | None
    why: str
    failed_step: Step | None = None
    rolled_back: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticRaised(Diagnosis, Event):
    type: ClassVar[str] = "diagnostic"
    iter: int | None = None
    service: str | None = None
    step: Step | None = None

    @classmethod
    def of(
        cls,
        diagnosis: Diagnosis,
        *,
        iter: int | None = None,  # noqa: A002 - the key's name on the wire
        service: str | None = None,
        step: Step | None = None,
    ) -> DiagnosticRaised:
        said = {f.name: getattr(diagnosis, f.name) for f in dataclasses.fields(diagnosis)}
        return cls(**said, iter=iter, service=service, step=step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChecked(Event):
    """devloop.yaml or a file that it reads changed. All that is wrong with it are the diagnostics
    with a place and without a service since the event before of this type; none that is an error if
    it is `valid`. Not sent where nothing is wrong, nor was."""

    type: ClassVar[str] = "config.checked"
    valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceChanges:
    """The services that a session works for from now on, those that it works for no more, and those
    that go on with other settings."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloaded(Event):
    """An edit of devloop.yaml or a file that it reads is taken over, as far as it can be: `changed`
    are the keys with other values (`services.web.build.args.PYTHON`), `services.NAME` for a whole
    service; `restart` are all keys whose present values take effect with a new start only."""

    type: ClassVar[str] = "config.reloaded"
    changed: tuple[str, ...]
    services: ServiceChanges
    restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldStarted(Event):
    """An iteration waits, and why; without `iter` a change in a session that is paused, a service
    that somebody rolled back, one that waits for another that it needs, or a session that is about
    to end. `until` is seconds from now to the next try, None when something else than time ends it;
    `code` is empty when it is no error that is waited out; `on` is the service that is waited for,
    if it is one."""

    type: ClassVar[str] = "hold"
    service: str
    iter: int | None
    reason: str
    code: str
    until: float | None
    attempt: int = 1
    on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodChanged(Event):
    type: ClassVar[str] = "pod.changed"
    service: str
    pod: str
    phase: str
    ready: bool
    deleting: bool
    image_ids: tuple[str, ...] = ()
    reason: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(Event):
    """One line of a container, which was restarted `restarts` times before it. The wire's `ts` is
    the kubelet's timestamp, not devloop's. Without a `container` it is one of a hook, which `pod`
    names (`before_build`), or of the service's `test`."""

    type: ClassVar[str] = "log"
    service: str
    pod: str
    container: str
    text: str
    ts: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardChanged(Event):
    """`debugger` is the kind of debugger that listens there: python, node or go."""

    type: ClassVar[str] = "forward.changed"
    service: str
    local: int
    port: int | str
    state: Literal["listening", "ready", "waiting", "closed"]
    pod: str = ""
    reason: str = ""
    debugger: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOpened(Event):
    """The session's page is at `url`. It has the secret that steers the session. It may come before
    `session.started`, which waits for the cluster."""

    type: ClassVar[str] = "page.opened"
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Event):
    """A slow reader missed `count` events; they are the gap in `seq` before this one."""

    type: ClassVar[str] = "dropped"
    count: int


@dataclass(frozen=True, slots=True)
class Record:
    """An event as it left the bus. `ts` is UTC in RFC 3339 with milliseconds."""

    seq: int
    ts: str
    event: Event


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 3)
    return value


# Made once: json.dumps would make another for each line.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def to_json(record: Record) -> str:
    """One line of NDJSON, without the newline; never raises on odd file names or log bytes."""
    event = record.event
    head = {"v": 1, "seq": record.seq, "ts": record.ts, "type": event.type}
    if isinstance(event, LogLine):
        # By hand: there are thousands a second of these, and of nothing else.
        head["ts"] = event.ts or record.ts
        head["service"] = event.service
        head["pod"] = event.pod
        head["container"] = event.container
        head["text"] = event.text
        head["restarts"] = event.restarts
        return _encode(head)
    return _encode(head | _plain(event))
