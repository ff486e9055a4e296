"""A small engine for watcher tests: it scans at every hint and keeps what came of it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

from devloop.base.cancel import Cancel, Cancelled
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.errors import DevloopError
from devloop.watch.hints import WatchHints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.model import Scan
    from devloop.watch.source import ServiceSource


# Longer than any hint may take to come: nothing more comes after it.
_REST = 0.35


def service(context: Path, *, manifests: tuple[str, ...] = (), **build: Any) -> Service:
    """A service whose Dockerfile is in the context unless told otherwise."""
    build.setdefault("dockerfile", context / "Dockerfile")
    return Service(
        name="web",
        image="shop/web",
        build=Build(context=context, **build),
        deploy=Deploy(workload_name="web", manifests=manifests),
    )


class Session:
    """Watches one service in a thread of its own from `with` to the end of it.

    `hints` holds all hints but the first, `scans` all scans that differ from the one before."""

    def __init__(self, source: ServiceSource, **options: Any) -> None:
        self.source = source
        self.hints: list[frozenset[Path] | None] = []
        self.scans: list[Scan] = []
        self.errors: list[DevloopError] = []
        self.told: list[str] = []
        self.seen = 0.0
        self._cancel = Cancel()
        self._ready = threading.Event()
        self._crash: BaseException | None = None
        self._watch = WatchHints([source], warn=lambda d: self.told.append(d.code), **options)
        self._thread = threading.Thread(target=self._run, name="devloop-test-session")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), self._crash
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._crash is not None:
            raise self._crash

    def _run(self) -> None:
        try:
            for hint in self._watch.hints(self._cancel):
                if self._ready.is_set():
                    self.hints.append(hint)
                try:
                    scan = self.source.scan(hint, self._cancel)
                except DevloopError as error:
                    self.errors.append(error)
                else:
                    if not self.scans or scan.fingerprint != self.scans[-1].fingerprint:
                        self.scans.append(scan)
                self._ready.set()
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - shown by __exit__
            self._crash = error
            self._ready.set()

    def has(self, path: str) -> None:
        """Wait for `path` to be in the snapshot."""
        self.until(lambda: path in self.entries)

    @property
    def entries(self) -> list[str]:
        return list(self.scans[-1].snapshot.entries)

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.hints[-5:], self.told, self._crash)
            time.sleep(0.002)

    def more(self, than: int) -> None:
        """Wait for the scans to be more than that."""
        self.until(lambda: len(self.scans) > than)

    def rest(self) -> None:
        """Wait until nothing more comes of what was done before."""
        before = None
        while before != (before := (len(self.hints), len(self.scans), len(self.errors))):
            time.sleep(_REST)

    def change(self, action: Callable[..., object], *args: object) -> tuple[str, ...]:
        """Do something that must be seen as exactly one change; what it named."""
        start = len(self.scans)
        action(*args)
        self.more(start)
        time.sleep(_REST)
        assert len(self.scans) == start + 1, [s.changed for s in self.scans[start:]]
        return self.scans[-1].changed

    def nothing(
        self, action: Callable[..., object], *args: object, hints: int | None = None
    ) -> None:
        """Do something that must not be seen as a change (nor give more than `hints` hints)."""
        scans, given = len(self.scans), len(self.hints)
        action(*args)
        time.sleep(_REST)
        assert len(self.scans) == scans, self.scans[-1].changed
        if hints is not None:
            assert len(self.hints) - given <= hints, self.hints[given:]
