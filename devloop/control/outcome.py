"""How the iteration ended that somebody asked for, from the events after the request. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerOutcome:
    """`finished` is the event that ended it, None when the session ended first; `problems` are the
    errors that were reported of it, as events."""

    status: ExitStatus
    finished: dict[str, Any] | None
    problems: tuple[dict[str, Any], ...] = ()


def outcome_of(records: Iterable[dict[str, Any]], request: int, service: str) -> TriggerOutcome:
    """The outcome of request number `request`. Where a newer save superseded the iteration, that of
    the one that came through in its place; it takes as long as `records` last."""
    number: int | None = None
    problems: dict[int, list[dict[str, Any]]] = {}
    ends: dict[int, dict[str, Any]] = {}
    for record in records:
        kind = record.get("type")
        if kind == "session.ended":
            break
        if record.get("service") != service:
            continue
        of = record.get("iter")
        if kind == "trigger.taken" and request in record.get("ids", ()):
            number = of
        elif kind == "diagnostic" and record.get("severity") == "error" and of is not None:
            problems.setdefault(of, []).append(record)
        elif kind == "iteration.finished" and of is not None:
            ends[of] = record
        if number is None:
            continue
        for end in sorted(of for of in ends if of >= number):
            finished = ends.pop(end)
            if finished.get("outcome") != "cancelled" or finished.get("stopped"):
                found = tuple(problems.get(end, ()))
                return TriggerOutcome(
                    status=_status(finished, found), finished=finished, problems=found
                )
    return TriggerOutcome(status=ExitStatus.ENVIRONMENT, finished=None)


def _status(finished: dict[str, Any], problems: tuple[dict[str, Any], ...]) -> ExitStatus:
    if finished.get("outcome") in ("ready", "unchanged"):
        return ExitStatus.DONE
    for problem in reversed(problems):
        try:
            return Code(str(problem.get("code"))).exit_status
        except ValueError:
            continue  # a newer session's
    return ExitStatus.FAILED
