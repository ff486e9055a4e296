"""Mirror one collection of the API server: list it, watch it, and survive everything a watch can
suffer.

The contract is client-go's tools/cache/reflector.go: a list *replaces* the store, so a lost DELETED
event is harmless; a watch that ends normally resumes at the last resourceVersion without a list;
410 lists again; 429 and 5xx back off and do not list; bookmarks move the version; silence counts as
a dead connection. Clock, randomness and the server are handed in, so that scripted streams test it.
Must not know what the objects mean, nor keep them: that is the view's.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import field
from typing import TYPE_CHECKING, Literal, Protocol

from devloop.base.cancel import Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import report_bug, supervised
from devloop.cluster.api.api_errors import ApiError, status_error
from devloop.cluster.api.pod_view import Json, dig, items, number
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.cluster.api.pod_view import Json


_LONGEST_PAUSE, _RESET_SECONDS = 30.0, 120.0
# A watch that ends this soon without a word would spin if it were resumed at once.
_VERY_SHORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What happened. SYNC carries the whole collection in `items`; PUT and DELETE one object; LOST
    the error that cut the stream; LIVE says that the watch is (again) established."""

    type: Literal["SYNC", "PUT", "DELETE", "LOST", "LIVE"]
    object: Json = field(default_factory=dict)
    items: tuple[Json, ...] = ()
    error: DevloopError | None = None


class Feed(Protocol):
    """One collection of one server, as the reflector needs it."""

    def list(self, resource_version: str) -> Json:
        """The whole List object; "" asks for the newest."""

    def watch(self, resource_version: str, timeout_seconds: int) -> Iterator[Json]:
        """The events from `resource_version` on, opened when called. Ends when the server ends it;
        raises `DevloopError` when refused, cut or silent for too long."""

    def shut(self) -> None:
        """Make a blocked `list` or `watch` return at once; called from another thread."""


class Backoff:
    """Growing pauses: `base` seconds doubled each time, plus up to as much by chance, at most 30;
    from the start again after two minutes without one (client-go's figures)."""

    def __init__(
        self,
        *,
        base: float = 0.8,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._clock, self._chance = clock, chance
        self._step = 0
        self._last = clock()

    def next(self) -> float:
        now = self._clock()
        if now - self._last > _RESET_SECONDS:
            self._step = 0
        self._last = now
        pause = self._base * 2.0**self._step
        self._step = min(self._step + 1, 16)
        return min(_LONGEST_PAUSE, pause * (1.0 + self._chance()))


class Reflector:
    """One collection's mirror. `run` is the loop (in the caller's thread), `start` gives it one.

    Every change goes to `sink` in the reflector's thread. `on_bug` gets what ends that thread but
    should not, from the feed or from the sink. `close` ends it within 200 ms."""

    def __init__(
        self,
        feed: Feed,
        sink: Callable[[WatchEvent], None],
        *,
        name: str = "watch",
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_bug: Callable[[BaseException], None] = report_bug,
    ) -> None:
        self._feed = feed
        self._on_bug = on_bug
        self._sink = sink
        self._name = name
        self._backoff = backoff or Backoff(clock=clock)
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._version = ""  # the newest resourceVersion seen
        self._resume = False  # whether a watch may start from it without a list

    def start(self) -> None:
        self._thread = supervised(self._name, self.run, on_bug=self._on_bug)
        self._thread.start()

    def close(self) -> None:
        """Stop; returns when the thread is gone (at most a DNS look-up later)."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def stop(self) -> None:
        self._stop.set()
        self._feed.shut()

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._resume:
                    self._list()
                healthy = self._watch()
            except Cancelled:
                return
            except DevloopError as error:
                if self._stop.is_set():
                    return
                self._after(error)
                self._sink(WatchEvent("LOST", error=error))
                healthy = False
            if not healthy:
                self._stop.wait(self._backoff.next())

    def _after(self, error: DevloopError) -> None:
        """Decide what an error means for the next round: list again, or resume the watch."""
        if not isinstance(error, ApiError):
            return  # the connection broke: what was seen is still true
        refused = error.status != 429 and error.status < 500  # forbidden, gone kind, bad request
        if error.expired or error.too_large or refused:
            self._resume = False

    def _list(self) -> None:
        """List at the last version seen; if the server has dropped or not reached that one, list
        the newest: always forward."""
        try:
            page = self._feed.list(self._version)
        except ApiError as error:
            if not self._version or not (error.expired or error.too_large):
                raise
            page = self._feed.list("")
        self._version = _version_of(page)
        self._resume = bool(self._version)
        kind = {
            "kind": str(page.get("kind") or "").removesuffix("List"),
            "apiVersion": page.get("apiVersion"),
        }
        self._sink(WatchEvent("SYNC", items=tuple(kind | i for i in items(page.get("items")))))

    def _watch(self) -> bool:
        """Follow until the server ends it. False when it ended suspiciously fast."""
        began = self._clock()
        # 5 to 10 minutes, by chance, so that not all watches of a session end together.
        seconds = int(300 * (1.0 + random.random()))  # noqa: S311
        seen = False
        events = self._feed.watch(self._version, seconds)
        self._sink(WatchEvent("LIVE"))
        for event in events:
            if self._stop.is_set():
                raise Cancelled
            seen = True
            self._take(event)
        return seen or self._clock() - began >= _VERY_SHORT_SECONDS

    def _take(self, event: Json) -> None:
        kind, thing = event.get("type"), event.get("object")
        if not isinstance(thing, dict):
            return
        if kind == "ERROR":
            code = number(thing.get("code"), 500)
            raise status_error(code, thing, method="GET", path="", server="the API server's watch")
        if kind in {"ADDED", "MODIFIED"}:
            self._sink(WatchEvent("PUT", object=thing))
        elif kind == "DELETED":
            self._sink(WatchEvent("DELETE", object=thing))
        self._version = _version_of(thing) or self._version


def _version_of(thing: Json) -> str:
    return str(dig(thing, "metadata", "resourceVersion") or "")
