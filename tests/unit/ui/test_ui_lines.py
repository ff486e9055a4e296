"""The line output's contract with editors, and its plain wording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.editor import problems
from devloop.errors import Code, Diagnosis, Location
from devloop.events import (
    ConfigReloaded,
    DiagnosticRaised,
    Dropped,
    ForwardChanged,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    PageOpened,
    PodChanged,
    Record,
    ServiceChanges,
    Serving,
    SessionEnded,
    SessionPaused,
    SessionResumed,
    SessionStarted,
    StepFinished,
    StepProgress,
    StepStarted,
    Trigger,
    WatchChanged,
    WatchRescanned,
)
from devloop.model import Outcome, Step, StepOutcome
from devloop.ui.lines import LineFormatter, QuietFormatter
from devloop.ui.live_parts import Glyphs
from devloop.ui.live_state import LiveState
from devloop.ui.notices import Notices

if TYPE_CHECKING:
    from devloop.events import Event

# What the editors' tasks match with.
BEGIN = re.compile(problems.BEGIN)
END = re.compile(problems.END)
PROBLEM = re.compile(problems.PROBLEM)


KEYS = ", ".join(f"services.web.build.args.{name}" for name in "ABC") + " and 2 more"


def session() -> SessionStarted:
    return SessionStarted(
        version="0.1.0",
        mode="dev",
        project="shop",
        root="/home/u/shop",
        context="kind-dev",
        namespace="default",
        registry="localhost:5001",
        services=("web", "api"),
        pid=7,
    )


def finished(outcome: Outcome, **more: Any) -> IterationFinished:
    values: dict[str, Any] = {"ms": 3100.0, "digest": None, "serving": None, "why": ""}
    return IterationFinished(iter=7, service="web", outcome=outcome, **(values | more))


def lines(*events: Event, formatter: LineFormatter | QuietFormatter | None = None) -> list[str]:
    formatter = formatter or LineFormatter()
    records = (Record(n, "2026-11-23T14:31:07.112Z", event) for n, event in enumerate(events, 1))
    return [line for record in records for line in formatter.format(record)]


FAILED = (
    IterationStarted(
        iter=7, service="web", trigger=Trigger(kind="files", paths=("app.py",), count=1)
    ),
    StepStarted(iter=7, service="web", step=Step.SCAN),
    StepFinished(
        iter=7, service="web", step=Step.SCAN, outcome=StepOutcome.DONE, ms=12, detail="143 files"
    ),
    StepStarted(iter=7, service="web", step=Step.BUILD),
    StepProgress(iter=7, service="web", step=Step.BUILD, message="RUN pip", current=4, total=12),
    DiagnosticRaised.of(
        Diagnosis(
            code=Code.BUILD_RUN_FAILED,
            message="RUN exited 1: pip install -r req.txt",
            location=Location("/home/u/shop/sample_app/Dockerfile", 12, 1),
            cause="pip could not find `flaks`",
            suggestions=("did you mean `flask`?", "see requirements.txt:3"),
            detail=("ERROR: No matching distribution", "x.py:1:2: error[a/b]: forged"),
        ),
        iter=7,
        service="web",
        step=Step.BUILD,
    ),
    StepFinished(iter=7, service="web", step=Step.BUILD, outcome=StepOutcome.FAILED, ms=2788),
    finished(
        Outcome.FAILED,
        failed_step=Step.BUILD,
        why="RUN exited 1: pip install -r req.txt",
        serving=Serving(iter=6, image="r/web@sha256:9f2c41aa", digest="sha256:9f2c41aa"),
    ),
)


def test_a_failed_iteration() -> None:
    assert lines(session(), *FAILED) == [
        (
            "devloop: 0.1.0 dev shop: web, api; "
            "context kind-dev, namespace default, registry localhost:5001"
        ),
        "devloop: begin #7 web 1 file",
        "devloop: #7 web scan 0.01s 143 files",
        "sample_app/Dockerfile:12:1: error[build/run-failed]: RUN exited 1: pip install -r req.txt",
        "    ERROR: No matching distribution",
        "    x.py:1:2: error [a/b]: forged",
        "  cause  pip could not find `flaks`",
        "  try    did you mean `flask`?",
        "         see requirements.txt:3",
        "devloop: #7 web build failed 2.8s",
        "devloop: #7 web still serving #6 9f2c41",
        "devloop: end #7 failed build 3.1s",
    ]


def test_a_pod_that_was_restarted_and_fails_serves_nothing() -> None:
    served = Serving(iter=6, image="r/web@sha256:9f2c41aa", digest="sha256:9f2c41aa")
    ready = finished(Outcome.READY, serving=served)
    failed = finished(Outcome.FAILED, failed_step=Step.ROLLOUT)
    assert "devloop: #7 web nothing is serving" in lines(ready, failed)
    assert "nothing" not in " ".join(lines(failed))
    back = finished(Outcome.FAILED, failed_step=Step.ROLLOUT, rolled_back=True)
    assert "nothing" not in " ".join(lines(ready, back))


def test_editors_find_begin_problem_and_end_once_and_in_order() -> None:
    kinds = [
        name
        for line in lines(session(), *FAILED)
        for name, pattern in (("begin", BEGIN), ("problem", PROBLEM), ("end", END))
        if pattern.match(line)
    ]
    assert kinds == ["begin", "problem", "end"]
    problem = next(m for line in lines(session(), *FAILED) if (m := PROBLEM.match(line)))
    assert problem.groups() == (
        "sample_app/Dockerfile",
        "12",
        "1",
        "error",
        "build/run-failed",
        "RUN exited 1: pip install -r req.txt",
    )


def begin(number: int, service: str) -> IterationStarted:
    return IterationStarted(iter=number, service=service, trigger=Trigger(kind="retry"))


def problem(number: int, service: str, path: str, **more: Any) -> DiagnosticRaised:
    values: dict[str, Any] = {
        "code": Code.BUILD_FAILED,
        "message": "no",
        "location": Location(path, 2, 1),
    }
    return DiagnosticRaised(iter=number, service=service, **(values | more))


def ended(number: int, service: str, outcome: Outcome) -> IterationFinished:
    return IterationFinished(
        iter=number, service=service, outcome=outcome, ms=0, digest=None, serving=None, why=""
    )


def test_what_is_wrong_in_another_service_is_repeated_until_that_one_begins() -> None:
    formatter = LineFormatter()
    lines(
        begin(1, "web"),
        problem(1, "web", "app.py"),
        problem(1, "web", "app.py"),
        problem(1, "web", "Dockerfile", severity="info"),
        problem(1, "web", "x", location=None),
        ended(1, "web", Outcome.FAILED),
        formatter=formatter,
    )
    of_api = lines(begin(2, "api"), ended(2, "api", Outcome.READY), formatter=formatter)
    assert of_api == [
        "devloop: begin #2 api retry",
        "app.py:2:1: error[build/failed]: no",
        "devloop: end #2 ready 0.00s",
    ]
    assert lines(begin(3, "web"), formatter=formatter) == ["devloop: begin #3 web retry"]
    assert lines(begin(4, "api"), formatter=formatter) == ["devloop: begin #4 api retry"]


def test_what_goes_on_when_another_iteration_ends_begins_once_more() -> None:
    got = lines(
        begin(1, "web"),
        begin(2, "api"),
        problem(2, "api", "api.py"),
        problem(1, "web", "web.py"),
        ended(1, "web", Outcome.FAILED),
        problem(2, "api", "b.py"),
        ended(2, "api", Outcome.FAILED),
    )
    assert got == [
        "devloop: begin #1 web retry",
        "devloop: begin #2 api retry",
        "api.py:2:1: error[build/failed]: no",
        "web.py:2:1: error[build/failed]: no",
        "devloop: end #1 failed 0.00s",
        "devloop: begin #2 api under way",
        "api.py:2:1: error[build/failed]: no",
        "web.py:2:1: error[build/failed]: no",
        "b.py:2:1: error[build/failed]: no",
        "devloop: end #2 failed 0.00s",
    ]


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (finished(Outcome.READY), "devloop: end #7 ready 3.1s"),
        (finished(Outcome.UNCHANGED, ms=4.0), "devloop: end #7 unchanged 0.00s"),
        (finished(Outcome.CANCELLED), "devloop: end #7 cancelled 3.1s"),
        (finished(Outcome.CANCELLED, stopped=True), "devloop: end #7 stopped 3.1s"),
        (finished(Outcome.FAILED, failed_step=Step.PUSH), "devloop: end #7 failed push 3.1s"),
        (finished(Outcome.READY, ms=125_000.0), "devloop: end #7 ready 2m05s"),
    ],
)
def test_the_end_marker(event: IterationFinished, end: str) -> None:
    assert lines(event) == [end]
    assert END.match(end)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            ConfigReloaded(
                changed=("services.web.ports",), services=ServiceChanges(changed=("web",))
            ),
            ["devloop: devloop.yaml taken over: services.web.ports"],
        ),
        (
            ConfigReloaded(
                changed=("services.api", "services.db"),
                services=ServiceChanges(added=("api",), removed=("db",)),
            ),
            ["devloop: devloop.yaml taken over: service api added, service db removed"],
        ),
        (
            ConfigReloaded(
                changed=tuple(f"services.web.build.args.{n}" for n in "ABCDE"),
                services=ServiceChanges(changed=("web",)),
            ),
            ["devloop: devloop.yaml taken over: " + KEYS],
        ),
        # The diagnostic says it.
        (ConfigReloaded(changed=(), services=ServiceChanges(), restart=("registry",)), []),
        (
            ConfigReloaded(changed=(), services=ServiceChanges()),
            ["devloop: devloop.yaml needs no new start"],
        ),
    ],
)
def test_what_of_devloop_yaml_is_taken_over_is_one_line(
    event: ConfigReloaded, line: list[str]
) -> None:
    assert LineFormatter().format(Record(1, "2026-01-01T00:00:00.000Z", event)) == line


def test_the_reason_stands_before_the_end_marker() -> None:
    why = "superseded by a newer change"
    assert lines(finished(Outcome.CANCELLED, why=why)) == [
        f"devloop: #7 web {why}",
        "devloop: end #7 cancelled 3.1s",
    ]


def test_a_start_has_no_files() -> None:
    start = IterationStarted(iter=0, service="web", trigger=Trigger(kind="start"))
    assert lines(start) == ["devloop: begin #0 web start"]


@pytest.mark.parametrize(
    ("location", "place"),
    [
        (None, "devloop: error"),
        (Location("devloop.yaml"), "devloop.yaml:1:1: error"),
        (Location("devloop.yaml", 3), "devloop.yaml:3:1: error"),
        (Location("/home/u/shop/a b.py", 3, 4), "a b.py:3:4: error"),
        (Location("/home/u/shopping/a.py", 3, 4), "/home/u/shopping/a.py:3:4: error"),
        (Location("/etc/x\ny", 3, 4), "/etc/x\\ny:3:4: error"),
    ],
)
def test_places(location: Location | None, place: str) -> None:
    event = DiagnosticRaised(
        code=Code.BUILD_FAILED, severity="error", message="no\nway", location=location
    )
    assert lines(session(), event)[1:] == [f"{place}[build/failed]: no\\nway"]


def log(text: str, *, pod: str = "web-6c9d-x2x7", container: str = "web") -> LogLine:
    return LogLine(service="web", pod=pod, container=container, text=text)


def test_log_lines_name_service_and_pod_and_the_container_if_there_are_several() -> None:
    got = lines(
        log("listening on :8080"),
        log("\x1b[31mred\x1b[0m"),
        log("hi", pod="web-6c9d-k9k2", container="sidecar"),
        log("again"),
        log(""),
    )
    assert got == [
        "[web x2x7] listening on :8080",
        "[web x2x7] red",
        "[web k9k2 sidecar] hi",
        "[web x2x7 web] again",
        "[web x2x7 web]",
    ]


@given(st.text(), st.sampled_from(["{}", "devloop: end #1 ready{}", "a:1:2: error[x/y]: {}"]))
def test_no_log_line_can_forge_a_marker_or_a_problem(text: str, shape: str) -> None:
    (line,) = lines(log(shape.format(text)))
    assert line.startswith("[web x2x7]")
    assert len(line.splitlines()) == 1
    assert not any(pattern.search(line) for pattern in (BEGIN, END, PROBLEM))


@given(st.text())
def test_nothing_said_elsewhere_can_forge_one_either(text: str) -> None:
    text = f"{text}\ndevloop: end #7 ready\na:1:1: error[x/y]: no"
    got = lines(
        HoldStarted(service="web", iter=7, reason=text, code="registry/unreachable", until=4.0),
        PodChanged(service="web", pod="web-1", phase="", ready=False, deleting=False, reason=text),
        StepFinished(
            iter=7, service="web", step=Step.PUSH, outcome=StepOutcome.DONE, ms=1, detail=text
        ),
        SessionEnded(exit_code=1, why=text),
    )
    assert len(got) == 4
    for line in got:
        assert len(line.splitlines()) == 1
        assert not any(pattern.search(line) for pattern in (BEGIN, END, PROBLEM))


def test_the_other_events_have_a_stable_plain_form() -> None:
    hold = HoldStarted(
        service="web",
        iter=12,
        reason="registry localhost:5001 refused the connection",
        code="registry/unreachable",
        until=4.0,
        attempt=3,
    )
    pod = PodChanged(
        service="web", pod="web-1-a", phase="Running", ready=False, deleting=False, reason=""
    )
    slot = HoldStarted(
        service="api", iter=3, reason="waits for one of 4 builds to end", code="", until=None
    )
    assert lines(slot) == ["devloop: #3 api holding: waits for one of 4 builds to end"]
    assert lines(
        hold,
        pod,
        pod,
        PodChanged(service="web", pod="web-1-a", phase="Running", ready=True, deleting=False),
        PodChanged(
            service="web",
            pod="web-1-a",
            phase="Running",
            ready=False,
            deleting=False,
            reason="CrashLoopBackOff",
            restarts=2,
        ),
        PodChanged(service="web", pod="web-1-a", phase="Running", ready=False, deleting=True),
        ForwardChanged(service="web", local=8080, port=80, state="ready", pod="web-1-a"),
        ForwardChanged(service="web", local=8080, port=80, state="waiting"),
        ForwardChanged(service="web", local=8080, port=80, state="ready", pod="web-1-b"),
        ForwardChanged(service="web", local=2345, port=2345, state="ready", debugger="go"),
        WatchChanged(service="web", paths=("app.py",), count=1),
        WatchRescanned(service="web", reason="anything may have changed", files=1430, ms=20),
        Dropped(count=12300),
        SessionEnded(exit_code=130, why="interrupted"),
    ) == [
        (
            "devloop: #12 web holding [registry/unreachable]: "
            "registry localhost:5001 refused the connection; next try in 4s (3rd)"
        ),
        "devloop: web pod web-1-a new",
        "devloop: web pod web-1-a ready",
        "devloop: web pod web-1-a CrashLoopBackOff, 2 restarts",
        "devloop: web pod web-1-a stopping",
        "devloop: web localhost:8080 -> 80 ready",
        "devloop: web localhost:2345 -> go debugger ready",
        "devloop: web looked at 1,430 files again in 0.02s: anything may have changed",
        "devloop: … 12,300 lines dropped, the reader is too slow",
        "devloop: exit 130: interrupted",
    ]


def test_a_long_step_tells_every_ten_seconds_how_far_it_is() -> None:
    formatter = LineFormatter()
    started = StepStarted(iter=7, service="web", step=Step.BUILD)
    got: list[str] = []
    formatter.format(Record(1, "2026-11-23T14:31:00.000Z", started))
    for second in range(1, 25):
        progress = StepProgress(
            iter=7, service="web", step=Step.BUILD, message="RUN pip", current=4, total=12
        )
        got += formatter.format(Record(second, f"2026-11-23T14:31:{second:02}.000Z", progress))
    assert got == ["devloop: #7 web build 4/12 RUN pip"] * 2


def test_a_scan_that_lasts_is_reported_before_there_is_an_iteration() -> None:
    at = StepProgress(iter=None, service="web", step=Step.SCAN, message="9 files read, at data")
    assert lines(at) == ["devloop: web scan 9 files read, at data"]
    (row,) = Notices(Glyphs()).take(at, busy=frozenset())
    assert row.parts[0][0].endswith(" web scan 9 files read, at data")


def test_where_the_page_is_stands_in_every_output_as_one_word() -> None:
    url = "http://localhost:10351/#" + "x" * 43
    assert lines(PageOpened(url=url)) == [f"devloop: page {url}"]
    assert lines(PageOpened(url=url), formatter=QuietFormatter()) == [f"devloop: page {url}"]
    # Also before the session has begun: while it waits there is most to look at.
    (row,) = LiveState(Glyphs()).take(Record(1, "2026-11-30T14:00:00.000Z", PageOpened(url=url)))
    assert row.parts[-1][0] == url
    assert sum(len(text) for text, _ in row.parts) <= 80


def test_quiet_says_problems_and_how_it_ended() -> None:
    got = lines(
        session(),
        *FAILED,
        log("hello"),
        finished(Outcome.CANCELLED),
        SessionEnded(exit_code=1, why="web failed"),
        formatter=QuietFormatter(),
    )
    assert got == [
        "sample_app/Dockerfile:12:1: error[build/run-failed]: RUN exited 1: pip install -r req.txt",
        "    ERROR: No matching distribution",
        "    x.py:1:2: error [a/b]: forged",
        "  cause  pip could not find `flaks`",
        "  try    did you mean `flask`?",
        "         see requirements.txt:3",
        "devloop: web failed build 3.1s, still serving #6 9f2c41",
        "devloop: exit 1: web failed",
    ]


def test_a_pause_and_its_end_are_lines_and_a_save_meanwhile_is_one() -> None:
    reason = "paused by `devloop pause`: `devloop resume` goes on"
    wait = HoldStarted(service="web", iter=None, reason=reason, code="", until=None)
    assert lines(SessionPaused(reason=reason), wait, SessionResumed()) == [
        f"devloop: {reason}",
        f"devloop: web {reason}",
        "devloop: goes on",
    ]
