"""The live view: whole sessions as they look at several widths, and the line below them.

After a wanted change of looks: GOLDEN=write pytest tests/unit/ui/test_ui_live.py, and read
the difference.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.errors import Code, Diagnosis, Location
from devloop.events import (
    DiagnosticRaised,
    Dropped,
    ForwardChanged,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    PodChanged,
    Serving,
    SessionEnded,
    StepProgress,
    Trigger,
    WatchRescanned,
)
from devloop.model import Outcome, Step, StepOutcome
from devloop.ui.live_parts import Glyphs, LogPrefixes, Row, glyphs_for, paint, plain_text, render
from devloop.ui.live_state import LiveState
from devloop.ui.sanitize import plain
from devloop.ui.text import progress
from tests.unit.ui.scripts import DOCKERFILE, Script, whole_session

GOLDEN = Path(__file__).parent / "golden"
UNICODE = glyphs_for("utf-8")
ASCII = glyphs_for("ascii")


def read_source(path: str) -> list[str] | None:
    return DOCKERFILE.splitlines() if path.endswith("Dockerfile") else None


def rows(script: Script, glyphs: Glyphs = UNICODE, width: int = 80) -> list[str]:
    story = LiveState(glyphs, read_source)
    return [
        plain_text(line)
        for record in script.records
        for row in story.take(record)
        for line in render(row, width, glyphs)
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 140])
@pytest.mark.parametrize("glyphs", ["unicode", "ascii"])
def test_a_whole_session(width: int, glyphs: str) -> None:
    chosen = UNICODE if glyphs == "unicode" else ASCII
    story = LiveState(chosen, read_source)
    text = ""
    for record in whole_session():
        for row in story.take(record):
            for line in render(row, width, chosen):
                assert line.cell_len <= width
                text += plain_text(line) + "\n"
    assert not story.busy
    path = GOLDEN / f"session-{glyphs}-{width}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert glyphs == "unicode" or text.isascii()


def test_several_services_are_named() -> None:
    s = Script(services=("web", "api"))
    s.session()
    s.begin(service="api")
    s.step(Step.BUILD, 0.9, "delta, 1 layer", service="api")
    s.finish(Outcome.READY, digest="aa11bb22", service="api")
    s.begin("api/x.py", service="api")
    s.step(Step.BUILD, 0.9, service="api")
    s.step(Step.PUSH, 0.1, outcome=StepOutcome.SKIPPED, service="api")
    s.finish(Outcome.FAILED, failed=Step.DEPLOY, why="no", service="api")
    assert rows(s)[3:] == [
        "#0 api start",
        "  ✓ api       build       delta, 1 layer                               0.9 s",
        "● ready in 0.9 s   api   #0 aa11bb",
        "✗ api deploy failed in 1.0 s   still serving #0 aa11bb   waiting for a change",
    ]


def test_a_pod_that_was_restarted_and_fails_serves_nothing() -> None:
    s = Script()
    s.session()
    s.begin()
    s.finish(Outcome.READY, digest="aa11bb22")
    s.begin("x.py")
    s.step(Step.ROLLOUT, 0.9)
    s.serving.clear()
    s.finish(Outcome.FAILED, failed=Step.ROLLOUT, why="it crashes")
    assert rows(s)[-1].endswith("   nothing is serving   waiting for a change")


def test_what_was_rolled_back_may_serve_again() -> None:
    s = Script()
    s.session()
    s.begin()
    s.finish(Outcome.READY, digest="aa11bb22")
    s.begin("x.py")
    s.serving.clear()
    s.finish(Outcome.FAILED, failed=Step.ROLLOUT, rolled_back=True)
    assert rows(s)[-1].endswith("   rolled back   waiting for a change")


def test_a_rollback_says_what_serves_and_that_it_stays() -> None:
    script = Script()
    script.session()
    script.iteration = 9
    trigger = Trigger(kind="rollback", to=8)
    script.add(IterationStarted(iter=9, service="web", trigger=trigger))
    script.step(Step.DEPLOY, 0.1, "deployment/web -> 4be01d, new pods")
    script.step(Step.ROLLOUT, 0.8, "1/1 ready")
    serving = Serving(iter=8, image="r/web@sha256:4be01d", digest="sha256:4be01d")
    script.add(
        IterationFinished(
            iter=9,
            service="web",
            outcome=Outcome.READY,
            ms=900.0,
            digest="sha256:4be01d",
            serving=serving,
            why="back on #8: serving 4be01d",
        )
    )
    hold = "back on #8: the next change is deployed again"
    script.add(HoldStarted(service="web", iter=None, reason=hold, code="", until=None))
    assert [line.split("  ")[0] for line in rows(script)[-4:]] == [
        "#9 back to #8",
        "",
        "",
        "● serving #8 4be01d",
    ]
    assert rows(script)[-1].endswith("auto-deploy paused until the next change")


def test_news_is_one_line_each() -> None:
    s = Script()
    s.session()
    s.add(ForwardChanged(service="web", local=8080, port=80, state="listening"))
    s.add(ForwardChanged(service="web", local=8080, port=80, state="ready", pod="web-1"))
    s.add(ForwardChanged(service="web", local=8080, port=80, state="closed", reason="port taken"))
    s.add(ForwardChanged(service="web", local=9, port=9, state="listening", debugger="node"))
    s.add(WatchRescanned(service="web", reason="git checkout", files=1430, ms=20))
    s.add(Dropped(count=12300))
    warning = Diagnosis(
        code=Code.SAFETY_CONTEXT, severity="warning", message="odd context", cause="its name"
    )
    s.add(DiagnosticRaised.of(warning))
    s.add(DiagnosticRaised.of(replace(warning, location=Location("skaffold.yaml", 7, 3))))
    assert rows(s)[3:] == [
        "  → port        http://localhost:8080 to web:80",
        "! localhost:8080 is closed: port taken",
        "  → debug       localhost:9 for node's debugger in web",
        "· looked at 1,430 files again in 0.02 s: git checkout",
        "… 12,300 events not shown: the terminal is too slow",
        "! odd context  [safety/context]",
        "  its name",
        "! odd context  skaffold.yaml:7  [safety/context]",
        "  its name",
    ]


def test_a_pod_in_trouble_is_told_once_until_it_is_well_again() -> None:
    s = Script()
    s.session()

    def pod(reason: str, restarts: int, *, ready: bool = False) -> None:
        s.add(
            PodChanged(
                service="web",
                pod="web-1",
                phase="Running",
                ready=ready,
                deleting=False,
                reason=reason,
                restarts=restarts,
            )
        )

    for reason in ("ContainerCreating", "CrashLoopBackOff", "", "CrashLoopBackOff"):
        pod(reason, 1)
    pod("CrashLoopBackOff", 2)
    pod("", 2, ready=True)
    pod("CrashLoopBackOff", 2)
    assert rows(s)[3:] == [
        "! web pod web-1: CrashLoopBackOff, 1 restart",
        "! web pod web-1: CrashLoopBackOff, 2 restarts",
        "! web pod web-1: CrashLoopBackOff, 2 restarts",
    ]


def test_progress_says_each_count_once() -> None:
    def said(step: Step, message: str, current: int | None, total: int | None) -> str:
        return progress(
            StepProgress(
                iter=1, service="web", step=step, message=message, current=current, total=total
            )
        )

    assert said(Step.BUILD, "[4/12] RUN pip install", 4, 12) == "4/12 RUN pip install"
    assert said(Step.BUILD, "4/12 RUN pip install", 4, 12) == "4/12 RUN pip install"
    assert said(Step.BUILD, "reading", 143, None) == "143 reading"
    assert said(Step.ROLLOUT, "waiting for the controller", 0, None) == "waiting for the controller"
    assert said(Step.ROLLOUT, "0/1 ready", 0, 1) == "0/1 ready"
    assert (
        said(Step.PUSH, "pushing layer 53880987a5bf", 512, 9573) == "5% pushing layer 53880987a5bf"
    )
    assert said(Step.PUSH, "pushing layer 5", 16896, 9573) == "100% pushing layer 5"


def test_a_process_that_ends_again_and_again_is_told_in_full_once() -> None:
    s = Script()
    s.session()
    crash = Diagnosis(
        code=Code.POD_PROCESS_ENDED,
        message="the process of container web exited 1",
        cause="NameError: no ap (its container goes on)",
        detail=("Traceback (most recent call last):", "NameError: no ap"),
    )
    for _ in range(3):
        s.add(DiagnosticRaised.of(crash, service="web"))
    s.begin("app.py")
    s.finish(Outcome.READY, digest="aa11bb22")
    s.add(DiagnosticRaised.of(crash, service="web"))
    full = [
        "",
        "  the process of container web exited 1   [pod/process-ended]",
        "    │ Traceback (most recent call last):",
        "    │ NameError: no ap",
        "  cause   its container goes on",
        "",
    ]
    assert rows(s)[3:] == [
        *full,
        "! the process of container web exited 1, 2 times  [pod/process-ended]",
        "! the process of container web exited 1, 3 times  [pod/process-ended]",
        "#0 app.py",
        "● ready in 0.01 s   #0 aa11bb",
        *full,
    ]


def test_a_problem_without_a_session_is_shown_and_nothing_is_summed_up() -> None:
    s = Script()
    s.add(DiagnosticRaised.of(Diagnosis(code=Code.CONFIG_PARSE, message="not YAML")))
    s.add(SessionEnded(exit_code=2))
    assert rows(s) == ["", "  not YAML   [config/parse]", ""]


def test_evidence_that_quotes_the_line_is_not_doubled() -> None:
    s = Script()
    s.session()
    s.records += [r for r in whole_session() if isinstance(r.event, DiagnosticRaised)][:1]
    quoted = rows(s)
    assert "  > 4 │ RUN pip install -r requirements.txt" in quoted
    assert sum("COPY requirements" in line for line in quoted) == 1


def test_a_row_is_broken_at_a_gap_before_it_is_broken_between_words() -> None:
    def shown(text: str, width: int = 20) -> list[str]:
        return [plain_text(line) for line in render(Row.of(text, hang=2), width, UNICODE)]

    assert shown("failed in 2 s   waiting for it") == ["failed in 2 s", "  waiting for it"]
    assert shown("one   two   three four five") == ["one   two", "  three four five"]
    # What has no room of its own on a line begins where it stands.
    assert shown("cause  it was not there and will not be") == [
        "cause  it was not",
        "  there and will not",
        "  be",
    ]
    assert shown("漢字漢字漢字漢字漢  字漢字") == ["漢字漢字漢字漢字漢", "  字漢字"]


def status(script: Script, after: float = 0.0, width: int = 79) -> str:
    story = LiveState(UNICODE)
    for record in script.records:
        story.take(record)
    row = story.status(script.now.timestamp() + after)
    if row is None:
        return ""
    (line,) = render(row, width, UNICODE)
    assert line.cell_len <= width
    return plain_text(line)[2:]


def test_the_status_line() -> None:
    s = Script()
    s.session()
    assert status(s) == ""
    s.begin()
    s.finish(Outcome.READY, digest="aa11bb22")
    s.begin("app.py")
    assert status(s, 0.2) == "#1 0.2 s   serving #0 aa11bb"
    s.start(Step.BUILD)
    s.now = s.now.replace(second=20, microsecond=0)
    assert status(s, 0.4).startswith("#1 build ")
    assert status(s, 0.4).endswith(" · push · deploy · rollout   serving #0 aa11bb")
    s.progress(Step.BUILD, "RUN pip install -r requirements.txt", 4, 12, 0.9)
    assert "  4/12 RUN pip install -r requirements.txt   serving" in status(s, 1.5)
    s.progress(Step.BUILD, "4/12 RUN pip", 4, 12, 0)
    assert "  4/12 RUN pip   serving" in status(s, 1.5)
    assert status(s, 1.5, 30) == "#1 build 22.4 s  4/12 RUN p…"
    s.add(
        HoldStarted(
            service="web", iter=1, reason="refused", code="registry/unreachable", until=4, attempt=3
        )
    )
    assert status(s, 1.2) == "#1 holding: refused; next try in 3 s (3rd)"
    s.begin("b.py")
    assert status(s).startswith("#1 holding  ·  #2 ")


def test_the_spinner_turns() -> None:
    s = Script()
    s.begin("x")
    story = LiveState(UNICODE)
    for record in s.records:
        story.take(record)
    pictures = {str(story.status(1000 + tick / 10)) for tick in range(10)}
    assert len(pictures) == 10


@given(
    st.lists(st.tuples(st.text(max_size=60), st.sampled_from(["ok", "none"])), max_size=4),
    st.sampled_from(["", "4.1 s"]),
    st.integers(20, 130),
    st.integers(0, 12),
    st.booleans(),
)
def test_rows_fit_any_width(
    parts: list[tuple[str, str]], right: str, width: int, hang: int, wrap: bool
) -> None:
    lines = render(Row(tuple(parts), (right, "soft"), hang, wrap), width, UNICODE)
    assert lines
    for line in lines:
        assert line.cell_len <= width
        assert "\n" not in line.plain
    if wrap and not right:
        said = "".join(plain(text) for text, _ in parts)
        shown = "".join(line.plain for line in lines)
        assert "".join(shown.split()) == "".join(said.split())


def test_log_prefixes_tell_services_pods_and_containers_apart() -> None:
    logs = LogPrefixes(UNICODE, color=True)
    logs.expect(("web", "worker"))
    old = logs.line("web", "web-6c9d-x2x7", "web", "hi")
    new = logs.line("web", "web-7f1a-k9k2", "web", "hi")
    assert old == "\x1b[36mweb    x2x7\x1b[0m \x1b[2m│\x1b[0m hi"
    assert new == "\x1b[96mweb    k9k2\x1b[0m \x1b[2m│\x1b[0m hi"
    assert logs.line("web", "web-6c9d-x2x7", "web", "hi") == old
    assert "\x1b[35mworker " in logs.line("worker", "worker-1", "w", "hi")
    assert "web    x2x7 sidecar" in logs.line("web", "web-6c9d-x2x7", "sidecar", "hi")
    assert "web    x2x7 web" in logs.line("web", "web-6c9d-x2x7", "web", "hi")
    assert logs.line("unknown", "p", "c", "x") == logs.line("unknown", "p", "c", "x")


def test_log_text_keeps_its_colours_on_a_colour_terminal_only() -> None:
    text = "[bold]\x1b[31mred\x1b[2J"
    assert LogPrefixes(ASCII, color=False).line("w", "p-1", "c", text) == "w 1 | [bold]red"
    coloured = LogPrefixes(ASCII, color=True).line("w", "p-1", "c", text)
    assert coloured.endswith(" [bold]\x1b[31mred\x1b[0m")


def test_an_ellipsis_from_elsewhere_keeps_the_column_in_ascii() -> None:
    row = Row((("  push  sha256:a193d500d117…", "none"),), right=("0.7 s", "soft"))
    (line,) = render(row, 60, ASCII)
    assert plain_text(line).startswith("  push  sha256:a193d500d117... ")
    assert (line.cell_len, line.plain.isascii()) == (60, True)


def test_rows_are_painted_with_the_sixteen_colours() -> None:
    (line,) = render(Row.of(("ok", "ok"), " ", ("[red]text", "soft")), 80, UNICODE)
    assert paint(line) == "\x1b[32mok\x1b[0m \x1b[2m[red]text\x1b[0m"
