"""How numbers, places and images are worded, the same in every kind of output. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.ui.sanitize import plain

if TYPE_CHECKING:
    from devloop.events import PodChanged, Serving, StepProgress, Trigger


# What the kubelet gives as a reason while all is well.
_HARMLESS = frozenset({"", "ContainerCreating", "PodInitializing", "Completed"})


def count(n: int, noun: str) -> str:
    """`1 file`, `12 files`, `12,300 lines`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def ordinal(n: int) -> str:
    """`1st`, `2nd`, `11th`."""
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def duration(ms: float, *, space: str = "") -> str:
    """`0.02s`, `0.9s`, `3.1s`, `2m05s`, `2h14m`; `space` goes between number and unit."""
    if ms < 95:
        return f"{ms / 1000:.2f}{space}s"
    if ms < 59_950:
        return f"{ms / 1000:.1f}{space}s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60}{space}m{space}{seconds % 60:02}{space}s"
    minutes = round(ms / 60_000)
    return f"{minutes // 60}{space}h{space}{minutes % 60:02}{space}m"


def path_from(root: str, path: str) -> str:
    """`path` as seen from the project's directory `root`, if it lies in there."""
    inside = root.rstrip("/") + "/"
    return plain(path.removeprefix(inside) if root else path)


def serving_name(serving: Serving) -> str:
    """`#6 9f2c41`: the iteration and the start of its image's digest, or its tag."""
    name = serving.digest.removeprefix("sha256:")[:6]
    return f"#{serving.iter} {name or plain(serving.image.rpartition(':')[2])}"


def trigger_text(trigger: Trigger) -> str:
    """`start`, `1 file`, `12 files`."""
    return "start" if trigger.kind == "start" else count(trigger.count, "file")


def pod_trouble(event: PodChanged) -> str:
    """`CrashLoopBackOff, 2 restarts`; empty for a pod that is well, young or on its way out."""
    if event.ready or event.deleting or event.reason in _HARMLESS:
        return ""
    restarts = f", {count(event.restarts, 'restart')}" if event.restarts else ""
    return f"{event.reason}{restarts}"


def progress(event: StepProgress) -> str:
    """`4/12 RUN pip install`; a message that counts for itself is left alone."""
    if event.current is None:
        return event.message
    where = f"{event.current}/{event.total}" if event.total else f"{event.current}"
    return event.message if event.message.startswith(where) else f"{where} {event.message}"
