"""Notices that belong to no iteration: ports, pods in trouble, the watcher, a slow terminal.
Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.events import Dropped, ForwardChanged, PodChanged, WatchRescanned
from devloop.ui.live_parts import Row
from devloop.ui.text import count, duration, pod_trouble

if TYPE_CHECKING:
    from devloop.events import Event
    from devloop.ui.live_parts import Glyphs


def note(glyphs: Glyphs, text: str, code: str = "", cause: str = "") -> list[Row]:
    """A remark that wants attention but stops nothing."""
    rows = [Row.of((f"{glyphs.warn} {text}", "warn"), (f"  {code}", "soft"), hang=2)]
    return [*rows, Row.of((f"  {cause}", "soft"), hang=2)] if cause else rows


class Notices:
    """Remembers what was shown, so that nothing is shown twice."""

    def __init__(self, glyphs: Glyphs) -> None:
        self._glyphs = glyphs
        self._ports: dict[tuple[str, int], str] = {}
        self._pods: dict[str, str] = {}

    def urls(self, service: str) -> list[str]:
        """Where the service's ports are open."""
        return [f"http://localhost:{local}" for name, local in self._ports if name == service]

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
            case Dropped():
                text = f"{count(event.count, 'event')} not shown: the terminal is too slow"
                return [Row.of((f"{self._glyphs.more} {text}", "warn"), hang=2)]
        return []

    def _forward(self, event: ForwardChanged) -> list[Row]:
        key = (event.service, event.local)
        known = self._ports.get(key)
        if event.state == "closed":
            self._ports.pop(key, None)
            if not event.reason:
                return []
            return note(self._glyphs, f"localhost:{event.local} is closed: {event.reason}")
        self._ports[key] = event.state
        if known is not None:
            return []
        url = f"http://localhost:{event.local}"
        return [
            Row.of(
                "  ",
                (self._glyphs.arrow, "ok"),
                f" {'port':<12}",
                (url, "place"),
                f" to {event.service}:{event.port}",
                hang=16,
            )
        ]

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
