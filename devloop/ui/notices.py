"""What the live view shows besides iterations: problems (what, where in the source, the evidence,
why, what to do) and notices of ports, pods in trouble, the watcher, a slow terminal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.events import (
    ConfigReloaded,
    Dropped,
    ForwardChanged,
    PageOpened,
    PodChanged,
    SessionPaused,
    SessionResumed,
    StepProgress,
    WatchRescanned,
)
from devloop.ui.live_parts import Row
from devloop.ui.text import count, duration, path_from, pod_trouble, progress, reload_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.events import DiagnosticRaised, Event
    from devloop.ui.live_parts import Glyphs


# Source lines shown above the one in question.
_ABOVE = 1


def note(glyphs: Glyphs, text: str, code: str = "", cause: str = "") -> list[Row]:
    """A remark that wants attention but stops nothing."""
    rows = [Row.of((f"{glyphs.warn} {text}", "warn"), (f"  {code}", "soft"), hang=2)]
    return [*rows, Row.of((f"  {cause}", "soft"), hang=2)] if cause else rows


class Notices:
    """Remembers what was shown, so that nothing is shown twice."""

    def __init__(self, glyphs: Glyphs) -> None:
        self._glyphs = glyphs
        self._ports: dict[tuple[str, int], str] = {}
        self._debuggers: set[tuple[str, int]] = set()
        self._pods: dict[str, str] = {}

    def urls(self, service: str) -> list[str]:
        """Where the service's ports are open."""
        ports = (key for key in self._ports if key not in self._debuggers)
        return [f"http://localhost:{local}" for name, local in ports if name == service]

    def take(self, event: Event, *, busy: frozenset[str]) -> list[Row]:
        """The rows for an event; `busy` are the services with an iteration going on."""
        match event:
            case ForwardChanged():
                return self._forward(event)
            case PodChanged() | WatchRescanned() if event.service in busy:
                return []  # the iteration reports them
            case PodChanged():
                return self._pod(event)
            case WatchRescanned():
                took = duration(event.ms, space=" ")
                text = f"looked at {count(event.files, 'file')} again in {took}: {event.reason}"
                return [Row.of((f"{self._glyphs.dot} {text}", "soft"), hang=2)]
            case StepProgress() if event.iter is None:
                text = f"{self._glyphs.dot} {event.service} {event.step} {progress(event)}"
                return [Row.of((text, "soft"), hang=2)]
            case PageOpened():
                # Whole, or a terminal makes no link of it.
                arrow, url = (self._glyphs.arrow, "ok"), (event.url, "place")
                return [Row.of("  ", arrow, " page ", url)]
            case ConfigReloaded():
                text = reload_text(event)
                return [Row.of((f"{self._glyphs.dot} {text}", "soft"), hang=2)] if text else []
            case SessionPaused():
                return note(self._glyphs, event.reason)
            case SessionResumed():
                return [Row.of((f"{self._glyphs.dot} goes on", "soft"), hang=2)]
            case Dropped():
                text = f"{count(event.count, 'event')} not shown: the terminal is too slow"
                return [Row.of((f"{self._glyphs.more} {text}", "warn"), hang=2)]
        return []

    def _forward(self, event: ForwardChanged) -> list[Row]:
        key = (event.service, event.local)
        known = self._ports.get(key)
        if event.state == "closed":
            self._ports.pop(key, None)
            self._debuggers.discard(key)
            if not event.reason:
                return []
            return note(self._glyphs, f"localhost:{event.local} is closed: {event.reason}")
        self._ports[key] = event.state
        if known is not None:
            return []
        arrow, url = (self._glyphs.arrow, "ok"), (f"http://localhost:{event.local}", "place")
        if event.debugger:
            self._debuggers.add(key)
            address = (f"localhost:{event.local}", "place")
            what = f" for {event.debugger}'s debugger in {event.service}"
            return [Row.of("  ", arrow, f" {'debug':<12}", address, what, hang=16)]
        where = f" to {event.service}:{event.port}"
        return [Row.of("  ", arrow, f" {'port':<12}", url, where, hang=16)]

    def _pod(self, event: PodChanged) -> list[Row]:
        """A pod that gets into trouble by itself; during an iteration the diagnosis says it."""
        if event.ready or event.deleting:
            self._pods.pop(event.pod, None)
        trouble = pod_trouble(event)
        # Between two crashes it runs for a moment: that is no end of its trouble.
        if not trouble or trouble == self._pods.get(event.pod):
            return []
        self._pods[event.pod] = trouble
        return note(self._glyphs, f"{event.service} pod {event.pod}: {trouble}")


def frame(
    event: DiagnosticRaised,
    *,
    root: str,
    glyphs: Glyphs,
    read_source: Callable[[str], list[str] | None],
) -> list[Row]:
    """The rows of one problem, with an empty one above and below."""
    code = (f"   [{event.code}]", "soft")
    message = ("  " + event.message, "strong")
    source: list[Row] = []
    if event.location is None:
        rows = [Row(), Row.of(message, code, hang=2)]
    else:
        path = path_from(root, event.location.path)
        line = f":{event.location.line}" if event.location.line else ""
        rows = [Row(), Row.of(message, hang=2), Row.of((f"  {path}{line}", "place"), code, hang=2)]
        if event.location.line:
            lines = read_source(event.location.path) or []
            # The evidence may quote the line itself; once is enough.
            at = lines[event.location.line - 1 : event.location.line]
            if at and not any(at[0].strip() in detail for detail in event.detail):
                source = _excerpt(lines, event.location.line, glyphs)
    gutter = len(str(event.location.line)) + 4 if source and event.location else 3
    margin = f"{' ' * gutter} {glyphs.bar} "
    rows += source
    rows += [
        Row(((margin, "soft"), (text, "none")), hang=gutter + 3) for text in _trimmed(event.detail)
    ]
    if cause := _unsaid(event):
        rows.append(Row.of(("  cause   ", "soft"), cause, hang=10))
    for index, text in enumerate(event.suggestions):
        label = "try" if not index else ""
        rows.append(Row.of((f"  {label:<8}", "soft"), text, hang=10))
    return [*rows, Row()]


def _unsaid(event: DiagnosticRaised) -> str:
    """The cause without what the evidence ends in anyway."""
    cause = event.cause or ""
    for line in reversed(event.detail):
        if line.strip() and cause.startswith(line.strip()):
            rest = cause.removeprefix(line.strip()).strip()
            return rest[1:-1] if rest.startswith("(") and rest.endswith(")") else rest
    return cause


def _excerpt(lines: list[str], number: int, glyphs: Glyphs) -> list[Row]:
    width = len(str(number))
    rows = []
    for at in range(max(1, number - _ABOVE), number + 1):
        mark, style = ("  > ", "strong") if at == number else ("    ", "none")
        margin = (f"{at:>{width}} {glyphs.bar} ", "soft")
        text = lines[at - 1].expandtabs(4).rstrip()
        rows.append(Row(((mark, "bad"), margin, (text, style)), wrap=False))
    return rows


def _trimmed(detail: tuple[str, ...]) -> list[str]:
    lines = [line.rstrip() for line in detail]
    while lines and not lines[-1]:
        lines.pop()
    return lines
