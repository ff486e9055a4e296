"""The live view's memory: from records to the rows that stay and the line that does not.

Everything that stays is shown when it is known and never changed; what is still going on is in the
status line. No I/O (source lines come from an injected reader), no clock: time is in the records
and in what `status` is asked with.
"""

from __future__ import annotations

import statistics
from dataclasses import field, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from devloop import events
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code
from devloop.model import Outcome, Step, StepOutcome
from devloop.ui.live_parts import Row
from devloop.ui.notices import Notices, frame, note
from devloop.ui.text import (
    count,
    duration,
    keys_text,
    ordinal,
    path_from,
    progress,
    serving_name,
    session_facts,
    trigger_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.ui.live_parts import Glyphs


_STAGES = (Step.BUILD, Step.PUSH, Step.DEPLOY, Step.ROLLOUT)


@dataclass(slots=True, kw_only=True)
class _Iteration:
    """One that is going on. `shown`: its heading stands, so its steps are shown one by one."""

    event: events.IterationStarted
    since: float
    shown: bool
    step: Step | None = None
    step_since: float = 0.0
    progress: str = ""
    hold: events.HoldStarted | None = None
    done: list[events.StepFinished] = field(default_factory=list)
    failed: events.StepFinished | None = None
    problems: list[events.DiagnosticRaised] = field(default_factory=list)


class LiveState:
    """`take` gives the rows to add for a record, `status` the line below them for a moment.

    `read_source(path)` gives a file's lines, None if it cannot be read."""

    def __init__(
        self, glyphs: Glyphs, read_source: Callable[[str], list[str] | None] = lambda _: None
    ) -> None:
        self._glyphs = glyphs
        self._read_source = read_source
        self._session: events.SessionStarted | None = None
        self._since = 0.0
        self._iterations: dict[int | None, _Iteration] = {}
        self._serving: dict[str, events.Serving] = {}
        self._notices = Notices(glyphs)
        self._changes = 0
        self._ready: list[float] = []
        self._early: list[Row] = []
        # Services that somebody rolled back: said with the end of the iteration.
        self._back: set[str] = set()
        # What went wrong outside of iterations since the service's last, and how often.
        self._again: dict[tuple[str | None, str, str], int] = {}

    @property
    def busy(self) -> bool:
        """Whether there is a status line."""
        return bool(self._iterations)

    def expect(self, services: tuple[str, ...]) -> None:
        """The session works for these from now on."""
        if self._session is not None:
            self._session = replace(self._session, services=services)
        self._serving = {n: each for n, each in self._serving.items() if n in services}

    # --- what stays ----------------------------------------------------------------------------

    def take(self, record: events.Record) -> list[Row]:
        event, now = record.event, datetime.fromisoformat(record.ts).timestamp()
        running = self._iterations.get(getattr(event, "iter", None))
        match event:
            case events.SessionStarted():
                return self._begin(event, now)
            case events.SessionEnded():
                return self._end(event, now)
            case events.IterationStarted():
                return self._start(event, now)
            case events.IterationFinished():
                return self._finish(event)
            case events.DiagnosticRaised():
                return self._problem(event)
            case events.StepStarted() if running:
                rows = self._show_problems(running)
                running.step, running.step_since, running.progress = event.step, now, ""
                running.hold = running.failed = None
                return rows
            case events.StepProgress() if running:
                running.progress = progress(event)
                return []
            case events.StepFinished() if running:
                running.step = None
                return self._step_done(running, event)
            case events.HoldStarted() if running:
                again = running.hold is not None and running.hold.code == event.code
                running.hold, running.step, running.step_since = event, None, now
                running.failed = None
                again = again or event.attempt > 1
                return [] if again else [self._hold_row(running, event, event.until)]
            case events.HoldStarted() if event.iter is None:
                return self._service_hold(event)
        busy = frozenset(one.event.service for one in self._iterations.values())
        rows = self._notices.take(event, busy=busy)
        if self._session is None and not isinstance(event, events.PageOpened):
            # Ports are opened before all is known that the head says.
            self._early += rows
            return []
        return rows

    def _service_hold(self, event: events.HoldStarted) -> list[Row]:
        if event.service in self._back:
            return []
        text = f"{self._glyphs.hold} {event.service} {event.reason}"
        return [Row.of((text, "soft"), hang=2)]

    def _begin(self, event: events.SessionStarted, now: float) -> list[Row]:
        self._session, self._since = event, now
        names = ", ".join(event.services)
        what = names if names == event.project else f"{event.project}: {names}"
        where = session_facts(event, "   ")
        return [
            Row.of((f"devloop {event.version}", "strong"), f"   {what}", hang=2),
            Row.of((f"  {where}", "soft"), hang=2),
            Row(),
            *self._early,
        ]

    def _start(self, event: events.IterationStarted, now: float) -> list[Row]:
        shown = event.trigger.kind in ("start", "rollback")
        self._iterations[event.iter] = _Iteration(event=event, since=now, shown=shown)
        self._back.discard(event.service)
        self._again = {k: n for k, n in self._again.items() if k[0] != event.service}
        if shown:
            return [Row.of((self._name(event), "strong"), f" {trigger_text(event.trigger)}")]
        self._changes += 1
        return []

    def _step_done(self, running: _Iteration, event: events.StepFinished) -> list[Row]:
        if event.outcome is StepOutcome.FAILED:
            running.failed = event
            return self._show_problems(running)
        if event.step is Step.SCAN or event.outcome is StepOutcome.CANCELLED:
            return []
        if running.shown:
            return [self._step_row(running, event)]
        running.done.append(event)
        return []

    def _problem(self, event: events.DiagnosticRaised) -> list[Row]:
        running = self._iterations.get(event.iter)
        if event.code == Code.SYNC_IMAGE and not event.cause:
            return []  # as it should be, after each quiet save
        if event.code == Code.SAFETY_CHANGED_OUTSIDE and event.severity != "info":
            self._serving.pop(event.service or "", None)
        if event.severity != "error":
            place, code = event.location, f"[{event.code}]"
            if place is not None and place.line:
                code = f"{path_from(self._root(), place.path)}:{place.line}  {code}"
            return note(self._glyphs, event.message, code, event.cause or "")
        if running is None:
            return self._beside(event)
        running.problems.append(event)
        return []

    def _beside(self, event: events.DiagnosticRaised) -> list[Row]:
        """A problem outside of an iteration: in full once, then that it is there again."""
        key = (event.service, event.code, event.message)
        times = self._again[key] = self._again.get(key, 0) + 1
        if times == 1 or event.service is None:
            return self._frame(event)
        return note(self._glyphs, f"{event.message}, {times} times", f"[{event.code}]")

    def _show_problems(self, running: _Iteration) -> list[Row]:
        """The heading, the step that failed and why, once all of it is known."""
        if not running.problems:
            return []
        rows = [] if running.shown else [self._heading(running)]
        running.shown, running.done = True, []
        if running.failed is not None:
            rows.append(self._step_row(running, running.failed))
            running.failed = None
        for problem in running.problems:
            rows += self._frame(problem)
        running.problems = []
        return rows

    def _finish(self, event: events.IterationFinished) -> list[Row]:
        served_before = self._serving.pop(event.service, None)
        if event.serving is not None:
            self._serving[event.service] = event.serving
        running = self._iterations.pop(event.iter, None)
        if running is None:
            return []
        rows = self._show_problems(running)
        glyphs, name = self._glyphs, self._name(running.event)
        if event.outcome is Outcome.READY:
            return [*rows, *self._ready_rows(running, event)]
        if event.outcome is Outcome.FAILED:
            return [*rows, self._failed_row(event, served_before)]
        if event.outcome is Outcome.UNCHANGED:
            now = f"   {serving_name(event.serving)}" if event.serving else ""
            line = f"{glyphs.idle} {name} nothing to do: {event.why}{now}"
        else:
            word = "stopped" if event.stopped else "cancelled"
            why = f": {event.why}" if event.why and not event.stopped else ""
            line = f"{glyphs.off} {name} {word} after {duration(event.ms, space=' ')}{why}"
        return [*rows, Row.of((line, "soft"), hang=2)]

    def _ready_rows(self, running: _Iteration, event: events.IterationFinished) -> list[Row]:
        if running.event.trigger.kind == "rollback":
            return [self._back_row(event)]
        rows = [] if running.shown else [self._heading(running)]
        start = running.event.trigger.kind == "start"
        parts = [
            (f"{self._glyphs.ready} ready in {duration(event.ms, space=' ')}", "done"),
            (f"   {event.service}" if start and self._several else "", "strong"),
            (f"   {serving_name(event.serving) if event.serving else event.why}", "none"),
        ]
        if start:
            parts += [(f"   {url}", "place") for url in self._notices.urls(event.service)]
        else:
            self._ready.append(event.ms)
            if len(self._ready) > 1:
                fastest = duration(min(self._ready), space=" ")
                parts.append((f"   (x{len(self._ready)}, fastest {fastest})", "soft"))
        return [*rows, Row.of(*parts, hang=2)]

    def _back_row(self, event: events.IterationFinished) -> Row:
        self._back.add(event.service)
        label = f" {event.service}" if self._several else ""
        now = serving_name(event.serving) if event.serving else ""
        waits = "   auto-deploy paused until the next change"
        return Row.of(
            (f"{self._glyphs.ready}{label} serving {now}", "done"), (waits, "soft"), hang=2
        )

    def _failed_row(
        self, event: events.IterationFinished, served_before: events.Serving | None
    ) -> Row:
        waited = event.failed_step in (Step.ROLLOUT, None)
        what = "not ready after" if waited else f"{event.failed_step} failed in"
        label = f" {event.service}" if self._several else ""
        took = duration(event.ms, space=" ")
        parts = [(f"{self._glyphs.bad}{label} {what} {took}", "bad")]
        if event.rolled_back:
            parts.append(("   rolled back", "none"))
        if event.serving:
            parts.append((f"   still serving {serving_name(event.serving)}", "none"))
        elif served_before and not event.rolled_back:
            parts.append(("   nothing is serving", "warn"))
        if self._session is not None and self._session.mode == "dev":
            parts.append(("   waiting for a change", "soft"))
        return Row.of(*parts, hang=2)

    def _end(self, event: events.SessionEnded, now: float) -> list[Row]:
        session = self._session
        if session is None:
            return []
        rows = [
            Row.of("  ", (self._glyphs.ok, "ok"), f" left        {name} on {serving_name(serving)}")
            for name, serving in sorted(self._serving.items())
            if session.mode == "dev"
        ]
        word = "stopped" if session.mode == "dev" else "done" if not event.exit_code else "failed"
        line = f"{word} after {duration((now - self._since) * 1000, space=' ')}"
        if self._changes:
            line += f": {count(self._changes, 'change')}, {len(self._ready)} ready"
            if self._ready:
                line += f", median {duration(statistics.median(self._ready), space=' ')}"
        why = event.why if event.exit_code not in (0, 130, 143) else ""
        return [*rows, Row.of(line, (f"   {why}" if why else "", "bad"), hang=2)]

    # --- rows ----------------------------------------------------------------------------------

    @property
    def _several(self) -> bool:
        return self._session is not None and len(self._session.services) > 1

    def _name(self, event: events.IterationStarted) -> str:
        return f"#{event.iter} {event.service}" if self._several else f"#{event.iter}"

    def _heading(self, running: _Iteration) -> Row:
        """`#7 app.py            build 0.9  push 0.1  deploy 0.1  rollout 0.8`"""
        head = f"{self._name(running.event)} "
        words = _changed(running.event, self._glyphs.more)
        steps = "  ".join(
            f"{s.step} {s.ms / 1000:.1f}" for s in running.done if s.outcome is StepOutcome.DONE
        )
        gap = " " * max(3, 21 - len(head) - len(words)) if steps else ""
        return Row.of((head, "strong"), words, gap, (steps, "soft"), hang=4)

    def _step_row(self, running: _Iteration, event: events.StepFinished) -> Row:
        detail, glyph = event.detail, (self._glyphs.ok, "ok")
        if event.outcome is StepOutcome.FAILED:
            detail, glyph = detail or "failed", (self._glyphs.bad, "bad")
        elif event.outcome is StepOutcome.SKIPPED:
            glyph = (self._glyphs.off, "soft")
        service = f"{running.event.service:<9} " if self._several else ""
        parts = (("  ", "none"), glyph, (f" {service}{event.step:<11} {detail}", "none"))
        return Row(parts, right=(duration(event.ms, space=" "), "soft"))

    def _hold_row(self, running: _Iteration, event: events.HoldStarted, until: float | None) -> Row:
        again = ""
        if until is not None:
            again = f"; next try in {max(0, round(until))} s"
            again += f" ({ordinal(event.attempt)})" if event.attempt > 1 else ""
        text = f"{self._glyphs.hold} {self._name(running.event)} holding: {event.reason}{again}"
        return Row.of((text, "warn"), hang=2)

    def _root(self) -> str:
        return self._session.root if self._session else ""

    def _frame(self, event: events.DiagnosticRaised) -> list[Row]:
        return frame(event, root=self._root(), glyphs=self._glyphs, read_source=self._read_source)

    # --- what does not stay --------------------------------------------------------------------

    def status(self, now: float) -> Row | None:
        """What is going on at `now` (seconds since the epoch); None when nothing is."""
        if not self._iterations:
            return None
        *others, running = self._iterations.values()
        if running.hold is not None and not others:
            until = running.hold.until
            left = None if until is None else until - (now - running.step_since)
            row = self._hold_row(running, running.hold, left)
            return Row(row.parts, wrap=False)
        frames = self._glyphs.spinner
        parts = [(frames[int(now * 10) % len(frames)], "busy"), (" ", "none")]
        for index, one in enumerate(self._iterations.values()):
            if index:
                parts.append((f"  {self._glyphs.dot}  ", "soft"))
            parts += self._going_on(one, now, alone=not others)
        serving = self._serving.get(running.event.service)
        if serving is not None and not others:
            parts.append((f"   serving {serving_name(serving)}", "soft"))
        return Row(tuple(parts), wrap=False)

    def _going_on(self, one: _Iteration, now: float, *, alone: bool) -> list[tuple[str, str]]:
        parts: list[tuple[str, str]] = [(f"{self._name(one.event)} ", "strong")]
        if one.hold is not None:
            return [*parts, ("holding", "warn")]
        if one.step is None:
            return [*parts, (duration((now - one.since) * 1000, space=" "), "none")]
        took = duration(max(0.0, now - one.step_since) * 1000, space=" ")
        parts.append((f"{one.step} {took}", "none"))
        if not alone:
            return parts
        if one.progress:
            parts.append((f"  {one.progress}", "soft"))
        elif one.step in _STAGES:
            rest = _STAGES[_STAGES.index(one.step) + 1 :]
            dot = self._glyphs.dot
            parts.append(("".join(f" {dot} {step}" for step in rest), "soft"))
        return parts


def _changed(event: events.IterationStarted, more: str) -> str:
    """The changed files' names, a few of them; or the keys of devloop.yaml."""
    if event.trigger.kind == "config":
        return keys_text(event.trigger.paths, event.trigger.count)
    names = list(dict.fromkeys(PurePosixPath(path).name for path in event.trigger.paths))
    if not names:
        return "another try" if event.trigger.kind == "retry" else "change"
    shown = ", ".join(names[:3])
    left = event.trigger.count - 3 if len(names) > 3 else 0
    return f"{shown} {more} {left} more" if left > 0 else shown
