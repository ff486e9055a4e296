"""Something wrong with a pod, and the words and small readings that all diagnoses share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, dig, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devloop.errors import Diagnosis


NEVER = float("inf")  # a grace: evidence for the deadline, not a reason to end before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a pod. `grace` is for how many seconds it must have been so to end the
    rollout: 0 at once, infinity never. `log` asks for a container's log as evidence; `previous`
    for that of its last run."""

    diagnosis: Diagnosis
    grace: float
    pod: str
    container: str = ""
    log: bool = False
    previous: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pod, self.container, self.diagnosis.code


_EXITS = {
    0: "the main process ended by itself; a service must keep running",
    1: "the program ended with an error",
    2: "the program was called with wrong arguments, or ended with an error",
    126: "the command was found but may not be executed",
    127: "the command was not found",
    128: "the container could not be started",
    130: "interrupted (SIGINT)",
    134: "the program aborted (SIGABRT)",
    135: "bus error (SIGBUS)",
    136: "arithmetic error (SIGFPE)",
    137: "killed (SIGKILL): out of memory, or it did not stop in time",
    139: "segmentation fault (SIGSEGV)",
    143: "told to stop (SIGTERM)",
    255: "the program ended with an error outside 0-254",
}


def exit_meaning(code: int | None) -> str:
    """What an exit code says; codes above 128 are 128 + the signal's number."""
    if code is None:
        return "it ended in an unknown way"
    if code in _EXITS:
        return _EXITS[code]
    if 128 < code < 160:
        return f"killed by signal {code - 128}"
    return "the program ended with an error"


def events_of(events: Iterable[Json], uid: str) -> list[Json]:
    """The events about one object, oldest first."""
    found = [e for e in events if uid and dig(e, "involvedObject", "uid") == uid]
    return sorted(found, key=_event_time)


def _event_time(event: Json) -> str:
    return (
        text(event.get("lastTimestamp"))
        or text(event.get("eventTime"))
        or text(dig(event, "metadata", "creationTimestamp"))
    )


def event_count(event: Json) -> int:
    for count in (event.get("count"), dig(event, "series", "count")):
        if isinstance(count, int):
            return count
    return 1


def last_event(events: Sequence[Json], *reasons: str) -> Json | None:
    return next((e for e in reversed(events) if e.get("reason") in reasons), None)


def one_line(message: str) -> str | None:
    return " ".join(message.split())[:500] or None
