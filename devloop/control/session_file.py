"""Keeping `.devloop/session.json` up to date: what `devloop status` shows of a running session.

A reader of events like any other, for people who look from outside. Nothing in devloop takes
decisions by it, so a full disk costs the file's freshness and nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from devloop import events
from devloop.base.process import is_alive
from devloop.base.state_file import StateFile
from devloop.errors import Code
from devloop.model import Outcome

if TYPE_CHECKING:
    from pathlib import Path


_NAME = "session.json"


def read_session(state_dir: Path) -> dict[str, Any] | None:
    """What the last session of a project wrote down; None when there is nothing to read.

    Keys: `v`, `pid`, `mode`, `version`, `started` (RFC 3339), `project`, `root`, `context`,
    `namespace`, `registry`, `services`, `paused` (None, or `reason` and `since`), after the end
    `ended` and `exit_code`; `reloaded`, None or what of devloop.yaml was taken over last
    (`changed`, `since`, and `restart`, what is not); and `running`: whether its process is alive.
    Each service has `iter`, `state` (`working`, `holding`, `idle`), `step`, `outcome`,
    `failed_step`, `ms`, `why`, `digest`, `serving`, `hold`, `pods` and `outside`: what somebody
    else changed of what runs since, "" for nothing."""
    session = StateFile(state_dir / _NAME).read(set_aside=False)
    if session is None or not isinstance(session.get("pid"), int):
        return None
    session = {"v": 1, **session}
    # One of another user is not the session: its number was given again.
    session["running"] = "ended" not in session and is_alive(session["pid"]) is True
    return session


class SessionFile:
    """Rewrites the file, as a whole and at once, when something worth knowing happened."""

    def __init__(self, state_dir: Path) -> None:
        self._file = StateFile(state_dir / _NAME)
        self._view = SessionView()

    def __call__(self, record: events.Record) -> None:
        if self._view.take(record):
            self._file.save(self._view.state)


class SessionView:
    """What the events so far say of a session: `state` has the keys of `read_session`, without
    `running`."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def copy(self) -> dict[str, Any]:
        """One that does not change any more."""
        return copy.deepcopy(self.state)

    def take(self, record: events.Record) -> bool:
        """Note what `record` says; False when that is nothing worth knowing."""
        event, ts = record.event, record.ts
        match event:
            case events.SessionStarted():
                facts = asdict(event)
                services = {name: _service() for name in facts.pop("services")}
                self.state = {"started": ts, **facts, "paused": None}
                self.state |= {"reloaded": None, "services": services}
            case events.ConfigReloaded():
                self._reloaded(event, ts)
            case events.SessionPaused():
                self.state["paused"] = {"reason": event.reason, "since": ts}
            case events.SessionResumed():
                self.state["paused"] = None
                self._nothing_held()
            case events.HoldStarted(iter=None):
                self._held(event)
            case events.SessionEnded():
                self._nothing_held()
                self.state |= {"ended": ts, "exit_code": event.exit_code, "why": event.why}
            case _:
                if isinstance(event, events.IterationFinished) and event.outcome != Outcome.FAILED:
                    self._nothing_held(on=event.service)
                service = self.state.get("services", {}).get(getattr(event, "service", None))
                if service is None or not _update(service, event):
                    return False
        # Before the session began there is nothing to write about it.
        return "pid" in self.state

    def _held(self, event: events.HoldStarted) -> None:
        service = self.state.get("services", {}).get(event.service)
        if service is not None:
            reason = "a change waits" if self.state.get("paused") else event.reason
            service["hold"] = {"code": "", "reason": reason, "attempt": 1, "on": event.on}

    def _nothing_held(self, *, on: str = "") -> None:
        """Nothing waits any more, or nothing `on` this service."""
        for each in self.state.get("services", {}).values():
            if each["state"] == "idle" and (not on or (each["hold"] or {}).get("on") == on):
                each["hold"] = None

    def _reloaded(self, event: events.ConfigReloaded, ts: str) -> None:
        changed, restart = list(event.changed), list(event.restart)
        self.state["reloaded"] = {"changed": changed, "restart": restart, "since": ts}
        services = self.state.setdefault("services", {})
        for name in event.services.removed:
            services.pop(name, None)
        for name in event.services.added:
            services[name] = _service()


def _service() -> dict[str, Any]:
    return {
        "iter": None,
        "state": "idle",
        "step": None,
        "outcome": None,
        "failed_step": None,
        "ms": None,
        "why": "",
        "digest": None,
        "serving": None,
        "hold": None,
        "outside": "",
        "pods": {},
    }


def _update(service: dict[str, Any], event: events.Event) -> bool:
    """Note what `event` says of a service; False for one that is not worth writing."""
    match event:
        case events.IterationStarted():
            service |= {"iter": event.iter, "state": "working", "step": None, "hold": None}
            service["outside"] = ""
        case events.DiagnosticRaised(code=Code.SAFETY_CHANGED_OUTSIDE, iter=None):
            if event.severity == "info":
                service["outside"] = ""  # as before, or nothing that matters
            else:
                service |= {"outside": event.message, "serving": None}
        case events.StepStarted():
            service |= {"state": "working", "step": str(event.step), "hold": None}
        case events.HoldStarted() if event.iter is not None:
            hold = {"code": event.code, "reason": event.reason, "attempt": event.attempt}
            service |= {"state": "holding", "step": None, "hold": hold}
        case events.IterationFinished():
            service |= {
                "iter": event.iter,
                "state": "idle",
                "step": None,
                "hold": None,
                "outcome": "stopped" if event.stopped else str(event.outcome),
                "failed_step": str(event.failed_step) if event.failed_step else None,
                "ms": round(event.ms),
                "why": event.why,
                "digest": event.digest,
                "serving": asdict(event.serving) if event.serving else None,
            }
        case events.PodChanged() if event.phase == "Gone":
            service["pods"].pop(event.pod, None)
        case events.PodChanged():
            service["pods"][event.pod] = {
                "phase": event.phase,
                "ready": event.ready,
                "deleting": event.deleting,
                "reason": event.reason,
                "restarts": event.restarts,
            }
        case _:
            return False
    return True
