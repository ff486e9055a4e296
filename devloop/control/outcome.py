"""How the iteration ended that somebody asked for, from the events after the request. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerOutcome:
    """`finished` is the event that ended it, None when the session ended first, or the service was
    `removed` from devloop.yaml; `problems` are the errors that were reported of it, as events."""

    status: ExitStatus
    finished: dict[str, Any] | None
    problems: tuple[dict[str, Any], ...] = ()
    removed: bool = False


def outcomes_of(
    records: Iterable[dict[str, Any]], request: int, services: Sequence[str]
) -> dict[str, TriggerOutcome]:
    """The outcome of request number `request` for each service. Where a newer save superseded an
    iteration, that of the one that came through in its place; it takes as long as `records` last,
    or until all are known."""
    awaited = {service: _Awaited(request) for service in services}
    found: dict[str, TriggerOutcome] = {}
    for record in records:
        if record.get("type") == "session.ended":
            break
        if record.get("type") == "config.reloaded":
            # What was asked of a service that goes comes to nothing.
            for gone in awaited.keys() & set(record["services"]["removed"]) - found.keys():
                found[gone] = TriggerOutcome(status=ExitStatus.FAILED, finished=None, removed=True)
            if len(found) == len(awaited):
                break
        service = str(record.get("service"))
        if service in found or service not in awaited:
            continue
        if (outcome := awaited[service].take(record)) is not None:
            found[service] = outcome
            if len(found) == len(awaited):
                break
    ended = TriggerOutcome(status=ExitStatus.ENVIRONMENT, finished=None)
    return {service: found.get(service, ended) for service in services}


class _Awaited:
    """What a service's events have said so far."""

    def __init__(self, request: int) -> None:
        self._request = request
        self._number: int | None = None
        self._problems: dict[int, list[dict[str, Any]]] = {}
        self._ends: dict[int, dict[str, Any]] = {}

    def take(self, record: dict[str, Any]) -> TriggerOutcome | None:
        """The outcome, once it is known."""
        kind, of = record.get("type"), record.get("iter")
        if kind == "trigger.taken" and self._request in record.get("ids", ()):
            self._number = of
        elif kind == "diagnostic" and record.get("severity") == "error" and of is not None:
            self._problems.setdefault(of, []).append(record)
        elif kind == "iteration.finished" and of is not None:
            self._ends[of] = record
        if self._number is None:
            return None
        for end in sorted(of for of in self._ends if of >= self._number):
            finished = self._ends.pop(end)
            if finished.get("outcome") != "cancelled" or finished.get("stopped"):
                problems = tuple(self._problems.get(end, ()))
                status = _status(finished, problems)
                return TriggerOutcome(status=status, finished=finished, problems=problems)
        return None


def _status(finished: dict[str, Any], problems: tuple[dict[str, Any], ...]) -> ExitStatus:
    if finished.get("outcome") in ("ready", "unchanged"):
        return ExitStatus.DONE
    for problem in reversed(problems):
        try:
            return Code(str(problem.get("code"))).exit_status
        except ValueError:
            continue  # a newer session's
    return ExitStatus.FAILED
