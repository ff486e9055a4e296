"""Line output: plain, append-only text for pipes, CI and editors' problem matchers; quiet output is
the problems in it and how it ended.

The markers `devloop: begin #N` and `devloop: end #N WORD` and the problem lines between them are a
contract; everything else is for people. Nothing that comes from elsewhere can look like a marker or
a problem: it is prefixed or indented, freed of controls and, where it reads like a problem, broken
by a space.

Editors drop all problems at a begin, but not while another iteration is under way, and take none
after an end. So what is still wrong in other services is repeated after a begin, and what is still
under way at an end begins once more. `devloop: begin config` and `end config` stand around what is
wrong when the configuration changed in between.
"""

from __future__ import annotations

from datetime import datetime

from devloop import events
from devloop.model import Outcome, StepOutcome
from devloop.ui.repeats import Repeats
from devloop.ui.sanitize import plain
from devloop.ui.text import (
    count,
    duration,
    explanation,
    not_a_problem,
    ordinal,
    pod_trouble,
    problem_line,
    progress,
    reload_text,
    serving_name,
    session_facts,
    trigger_text,
)

# A step that takes long reports how far it is this often, in seconds: CI kills what is silent.
_PROGRESS_EVERY = 10.0


class LineFormatter:
    """Remembers only what a line needs from the ones before: the project directory, which services
    have several containers, what was already reported, and where something is wrong."""

    def __init__(self) -> None:
        self._root = ""
        self._containers: dict[str, set[str]] = {}
        self._reported: dict[int, set[str]] = {}
        self._serving: set[str] = set()
        self._quiet_since: dict[int, str] = {}
        self._under_way: dict[int, str] = {}
        # By service; "" is the configuration.
        self._problems: dict[str, dict[str, None]] = {}
        self._config: dict[str, None] = {}
        self._forwards: dict[tuple[str, int], str] = {}
        self._pods: dict[str, str] = {}
        self._repeats = Repeats()

    def format(self, record: events.Record) -> list[str]:  # noqa: C901, PLR0912 - one line a type
        match record.event:
            case events.LogLine() as event:
                return [self._log(each) for each in self._repeats.take(event)]
            case events.SessionStarted() as event:
                self._root = event.root
                lines = [_session(event)]
            case events.IterationStarted() as event:
                self._reported[event.iter] = set()
                self._quiet_since[event.iter] = record.ts
                return self._begin(event)
            case events.StepStarted() as event:
                self._quiet_since[event.iter] = record.ts
                return []
            case events.StepProgress() as event:
                lines = self._progress(event, record.ts)
            case events.StepFinished() as event:
                self._quiet_since[event.iter] = record.ts
                lines = [_step(event)]
            case events.DiagnosticRaised() as event:
                if event.iter is not None:
                    self._reported.setdefault(event.iter, set()).add(event.message)
                return self._problem(event)
            case events.ConfigReloaded() as event:
                text = reload_text(event)
                lines = [f"devloop: {text}"] if text else []
            case events.ConfigChecked() as event:
                return self._config_checked(event)
            case events.IterationFinished() as event:
                lines = [not_a_problem(plain(line)) for line in self._finished(event)]
                return lines + self._again(event.iter)
            case events.HoldStarted() as event:
                lines = [_hold(event)]
            case events.SessionPaused() as event:
                lines = [f"devloop: {event.reason}"]
            case events.SessionResumed():
                lines = ["devloop: goes on"]
            case events.PodChanged() as event:
                lines = self._pod(event)
            case events.ForwardChanged() as event:
                lines = self._forward(event)
            case events.WatchRescanned() as event:
                files = f"{count(event.files, 'file')} again in {duration(event.ms)}"
                lines = [f"devloop: {event.service} looked at {files}: {event.reason}"]
            case events.PageOpened() as event:
                lines = [f"devloop: page {event.url}"]
            case events.Dropped() as event:
                lines = [f"devloop: … {count(event.count, 'line')} dropped, the reader is too slow"]
            case events.SessionEnded() as event:
                why = f": {event.why}" if event.why else ""
                lines = [f"devloop: exit {event.exit_code}{why}"]
            case _:  # readers ignore what they do not know
                return []
        return [not_a_problem(plain(line)) for line in lines]

    # --- iterations ----------------------------------------------------------------------------

    def _begin(self, event: events.IterationStarted) -> list[str]:
        text = f"devloop: begin #{event.iter} {event.service} {trigger_text(event.trigger)}"
        self._problems.pop(event.service, None)
        others = [] if self._under_way else self._wrong()
        self._under_way[event.iter] = event.service
        return [not_a_problem(plain(text)), *others]

    def _again(self, ended: int) -> list[str]:
        """What goes on although `ended` has ended."""
        self._under_way.pop(ended, None)
        if not self._under_way:
            return []
        number, service = next(iter(self._under_way.items()))
        text = f"devloop: begin #{number} {service} under way"
        return [not_a_problem(plain(text)), *self._wrong()]

    def _problem(self, event: events.DiagnosticRaised) -> list[str]:
        line = problem_line(event, root=self._root)
        # Advice is given once; what has no place is on no editor's list.
        if event.location is not None and event.severity != "info":
            if event.service:
                self._problems.setdefault(event.service, {})[line] = None
            else:
                self._config[line] = None
        return [line, *explanation(event)]

    def _config_checked(self, event: events.ConfigChecked) -> list[str]:
        self._problems[""], self._config = self._config, {}
        if self._under_way:
            return []
        word = Outcome.UNCHANGED if event.valid else Outcome.FAILED
        return ["devloop: begin config", *self._wrong(), f"devloop: end config {word}"]

    def _wrong(self) -> list[str]:
        return [line for lines in self._problems.values() for line in lines]

    def _progress(self, event: events.StepProgress, ts: str) -> list[str]:
        if event.iter is None:
            return [f"devloop: {event.service} {event.step} {progress(event)}"]
        since = self._quiet_since.setdefault(event.iter, ts)
        quiet = datetime.fromisoformat(ts) - datetime.fromisoformat(since)
        if quiet.total_seconds() < _PROGRESS_EVERY:
            return []
        self._quiet_since[event.iter] = ts
        return [f"devloop: #{event.iter} {event.service} {event.step} {progress(event)}"]

    def _finished(self, event: events.IterationFinished) -> list[str]:
        reported = self._reported.pop(event.iter, set())
        self._quiet_since.pop(event.iter, None)
        about = f"devloop: #{event.iter} {event.service}"
        lines = [f"{about} {event.why}"] if event.why and event.why not in reported else []
        served_before = event.service in self._serving
        self._serving -= {event.service}
        if event.serving:
            self._serving |= {event.service}
        if event.outcome is Outcome.FAILED and event.serving:
            lines.append(f"{about} still serving {serving_name(event.serving)}")
        elif event.outcome is Outcome.FAILED and served_before and not event.rolled_back:
            lines.append(f"{about} nothing is serving")
        word = "stopped" if event.stopped else str(event.outcome)
        step = f" {event.failed_step}" if event.failed_step else ""
        lines.append(f"devloop: end #{event.iter} {word}{step} {duration(event.ms)}")
        return lines

    # --- the cluster ---------------------------------------------------------------------------

    def _log(self, event: events.LogLine) -> str:
        """`[web x2x7] text`, `[web x2x7 sidecar] text` once a service has several containers."""
        containers = self._containers.setdefault(event.service, set())
        if event.container:  # else it is a hook or a test
            containers.add(event.container)
        container = f" {event.container}" if event.container and len(containers) > 1 else ""
        prefix = f"[{event.service} {event.pod.rsplit('-', 1)[-1]}{container}]"
        return not_a_problem(f"{prefix} {plain(event.text)}".rstrip())

    def _pod(self, event: events.PodChanged) -> list[str]:
        state = "ready" if event.ready else pod_trouble(event) or "not ready"
        if event.deleting:
            state = "stopping"
        if self._pods.get(event.pod) == state:
            return []
        known = event.pod in self._pods
        self._pods[event.pod] = state
        if not known and state == "not ready":
            state = "new"
        return [f"devloop: {event.service} pod {event.pod} {state}"]

    def _forward(self, event: events.ForwardChanged) -> list[str]:
        # A port turns to `waiting` with every new pod; only what lasts is worth a line.
        state = f"{event.state}{': ' + event.reason if event.reason else ''}"
        key = (event.service, event.local)
        if event.state == "waiting" or self._forwards.get(key) == state:
            return []
        self._forwards[key] = state
        port = f"{event.debugger} debugger" if event.debugger else event.port
        return [f"devloop: {event.service} localhost:{event.local} -> {port} {state}"]


class QuietFormatter:
    """Problems as they happen, and where the page is; at the end one line a service."""

    def __init__(self) -> None:
        self._root = ""
        self._last: dict[str, events.IterationFinished] = {}

    def format(self, record: events.Record) -> list[str]:
        match record.event:
            case events.SessionStarted(root=root):
                self._root = root
            case events.DiagnosticRaised() as event:
                return [problem_line(event, root=self._root), *explanation(event)]
            case events.IterationFinished() as event:
                # A cancelled try says nothing about the service, unless there is nothing else.
                if event.outcome is not Outcome.CANCELLED or event.service not in self._last:
                    self._last[event.service] = event
            case events.PageOpened(url=url):
                return [f"devloop: page {url}"]
            case events.SessionEnded(exit_code=code, why=why):
                ends = [_end(event) for event in self._last.values()]
                if code and why:
                    ends.append(f"devloop: exit {code}: {why}")
                return [not_a_problem(plain(line)) for line in ends]
        return []


def _session(event: events.SessionStarted) -> str:
    services = ", ".join(event.services)
    head = f"devloop: {event.version} {event.mode} {event.project}: {services}"
    return f"{head}; {session_facts(event)}"


def _step(event: events.StepFinished) -> str:
    outcome = "" if event.outcome is StepOutcome.DONE else f" {event.outcome}"
    detail = f" {event.detail}" if event.detail else ""
    return (
        f"devloop: #{event.iter} {event.service} {event.step}{outcome} {duration(event.ms)}{detail}"
    )


def _hold(event: events.HoldStarted) -> str:
    if event.iter is None:
        return f"devloop: {event.service} {event.reason}"
    number = f" #{event.iter}"
    again = ""
    if event.until is not None:
        again = f"; next try in {event.until:.0f}s ({ordinal(event.attempt)})"
    code = f" [{event.code}]" if event.code else ""
    return f"devloop:{number} {event.service} holding{code}: {event.reason}{again}"


def _end(event: events.IterationFinished) -> str:
    line = f"devloop: {event.service} {event.outcome}"
    if event.failed_step:
        line += f" {event.failed_step}"
    line += f" {duration(event.ms)}"
    if event.serving:
        still = "still serving" if event.outcome is Outcome.FAILED else "serving"
        line += f", {still} {serving_name(event.serving)}"
    return line
