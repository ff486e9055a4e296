"""The last decision about each service, told from the events of its last iteration. Pure.

What happened, why, which way it went and why not a faster one are all in the events; here they are
put in order and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    Record = dict[str, Any]


# How many changed files are named.
_NAMED = 5

_CAUSES = {
    "start": "the session began",
    "retry": "another try was asked for, or the same bytes were saved again after a failure, "
    "or what a deploy missed has come",
    "recovered": "pods that had not become ready became so by themselves",
}

# In `step.finished` of a build: what comes behind says why it was no quicker one.
_FULL = "full build: "


@dataclass(slots=True, kw_only=True)
class Decision:
    """One service's last iteration. `finished` is None while it goes on; `waits` is the last hold's
    reason, where nothing has happened since, and `waits_on` the service that is waited for;
    `before` counts those before it that a newer change superseded."""

    service: str
    iter: int | None = None
    trigger: Record = field(default_factory=dict)
    asked: bool = False
    steps: list[Record] = field(default_factory=list)
    problems: list[Record] = field(default_factory=list)
    step: str = ""
    waits: str = ""
    waits_on: str = ""
    finished: Record | None = None
    before: int = 0

    def as_json(self) -> Record:
        """As plain data for programs; `why_not` has the reasons why quicker ways were not taken."""
        ended = self.finished or {}
        return {
            "service": self.service,
            "iter": self.iter,
            "because": self.because,
            "trigger": self.trigger or None,
            "superseded_before": self.before,
            "steps": [
                {key: step.get(key) for key in ("step", "outcome", "ms", "detail")}
                for step in self.steps
            ],
            "why_not": self.why_not,
            "problems": [
                {key: each.get(key) for key in ("code", "severity", "message", "cause")}
                for each in self.problems
            ],
            "step": self.step,
            "waits": self.waits,
            "outcome": ("stopped" if ended.get("stopped") else ended.get("outcome")),
            "why": ended.get("why", ""),
            "ms": ended.get("ms"),
            "serving": ended.get("serving"),
        }

    @property
    def because(self) -> str:
        """What the iteration began for, in words."""
        kind, paths = self.trigger.get("kind"), list(self.trigger.get("paths") or ())
        if kind == "files":
            more = self.trigger.get("count", 0) - len(paths[:_NAMED])
            named = ", ".join(paths[:_NAMED])
            text = f"{named} and {more} more changed" if more > 0 else f"{named} changed"
            return f"{text}, and another try was asked for" if self.asked else text
        if kind == "config":
            more = self.trigger.get("count", 0) - len(paths[:_NAMED])
            named = ", ".join(paths[:_NAMED])
            return f"devloop.yaml changed: {named}" + (f" and {more} more" if more > 0 else "")
        if kind == "image":
            return f"the image of {', '.join(paths)}, which it uses, is another one"
        if kind == "rollback":
            to = self.trigger.get("to")
            what = "an image of an earlier session" if to is None else f"the image of #{to}"
            return f"{what} was asked for again: a rollback"
        if kind == "retry" and self.asked:
            return "another try was asked for"
        return _CAUSES.get(str(kind), str(kind or ""))

    @property
    def why_not(self) -> list[str]:
        """Why quicker ways were not taken."""
        found = []
        for step in self.steps:
            name, detail = step.get("step"), str(step.get("detail") or "")
            if step.get("outcome") == "skipped" and name == "sync" and detail:
                found.append(f"not into the running containers: {detail}")
            elif step.get("outcome") == "skipped" and name == "build" and "sha256:" not in detail:
                found.append(f"not built by devloop alone: {detail}")
            elif name == "build" and _FULL in detail:
                found.append(f"not by a delta layer: {detail.partition(_FULL)[2]}")
        return found


def decisions(records: Iterable[Record]) -> dict[str, Decision]:
    """The last decision about each service that the records speak of, in their order."""
    found: dict[str, Decision] = {}
    asked: dict[str, set[int]] = {}
    for record in records:
        if record.get("type") == "session.started":
            found = {str(name): Decision(service=str(name)) for name in record["services"]}
            asked.clear()
        if record.get("type") == "config.reloaded":
            for gone in record["services"]["removed"]:
                found.pop(gone, None)
            for new in record["services"]["added"]:
                found[new] = Decision(service=new)
        name = record.get("service")
        for each in found.values():
            each.waits = "" if _is_over(each, record) else each.waits
        if not isinstance(name, str):
            continue
        decision = found.setdefault(name, Decision(service=name))
        if record.get("type") == "trigger.taken":
            # It comes after the iteration that it speaks of.
            asked.setdefault(name, set()).add(record["iter"])
            decision.asked = decision.asked or record["iter"] == decision.iter
        elif record.get("type") == "iteration.started":
            found[name] = _begun(decision, record)
        elif record.get("iter") == decision.iter or record.get("iter") is None:
            _take(decision, record)
    return found


def _is_over(decision: Decision, record: Record) -> bool:
    """Whether what the service waits for is no more."""
    if record.get("type") == "iteration.finished":
        return record.get("service") == decision.waits_on and record["outcome"] != "failed"
    return record.get("type") == "session.resumed"


def _begun(last: Decision, record: Record) -> Decision:
    ended = last.finished or {}
    superseded = ended.get("outcome") == "cancelled" and not ended.get("stopped")
    return Decision(
        service=last.service,
        iter=record["iter"],
        trigger=record["trigger"],
        before=last.before + 1 if superseded else 0,
    )


def _take(decision: Decision, record: Record) -> None:
    match record.get("type"):
        case "step.started":
            decision.step, decision.waits = str(record["step"]), ""
        case "step.finished":
            decision.step = ""
            decision.steps.append(record)
        case "diagnostic":
            decision.problems.append(record)
        case "hold":
            decision.waits, decision.waits_on = str(record["reason"]), str(record.get("on") or "")
        case "iteration.finished":
            decision.finished, decision.step, decision.waits = record, "", ""
