"""A crash loop says the same again and again: people see it once, and lose nothing that differs."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from devloop.events import LogLine, Record, to_json
from devloop.ui.lines import LineFormatter
from devloop.ui.repeats import _CONTAINERS, _LINES, Repeats
from devloop.ui.terminal import TerminalSink

TS = "2026-11-30T18:42:02.134681668Z"
CRASH = ["starting", "Traceback (most recent call last):", "NameError: ap"]


def line(text: str, restarts: int = 0, pod: str = "web-1-ab", container: str = "web") -> LogLine:
    return LogLine(service="web", pod=pod, container=container, text=text, restarts=restarts, ts=TS)


def shown(*starts: list[str], repeats: Repeats | None = None) -> list[str]:
    repeats = repeats or Repeats()
    return [
        each.text
        for restarts, texts in enumerate(starts)
        for text in texts
        for each in repeats.take(line(text, restarts))
    ]


def note(restart: int, lines: int = 3) -> str:
    return f"(restart {restart}: the same {lines} lines again, shown only if they differ)"


def test_the_same_lines_after_a_restart_are_one() -> None:
    assert shown(CRASH, CRASH, CRASH) == [*CRASH, note(1), note(2)]


def test_lines_that_differ_are_shown_with_all_before_them() -> None:
    other = [*CRASH[:2], "NameError: b"]
    assert shown(CRASH, other, other) == [*CRASH, note(1), *other, note(2)]
    assert shown(CRASH, ["other", *CRASH]) == [*CRASH, "other", *CRASH]


def test_what_follows_the_same_lines_is_shown_and_belongs_to_them_from_then_on() -> None:
    longer = [*CRASH, "bye"]
    assert shown(CRASH, longer, longer) == [*CRASH, note(1), "bye", note(2, 4)]


def test_a_start_that_ended_earlier_is_told() -> None:
    ended = "(restart 1: ended after 2 of these lines)"
    assert shown(CRASH, CRASH[:2], CRASH) == [*CRASH, note(1), ended, note(2)]


def test_the_same_lines_without_a_restart_or_of_another_pod_are_shown() -> None:
    assert shown([*CRASH, *CRASH]) == [*CRASH, *CRASH]
    repeats = Repeats()
    for pod in ("a", "b"):
        assert [e.text for t in CRASH for e in repeats.take(line(t, pod=pod))] == CRASH


def test_one_line_or_two_are_not_worth_another() -> None:
    assert shown(CRASH[:2], CRASH[:2]) == CRASH[:2] * 2


def test_remarks_about_the_log_are_no_lines_of_it() -> None:
    repeats = Repeats()
    remark = replace(line("… lines may be missing", 1), ts="")
    assert repeats.take(remark) == [remark]
    assert shown(CRASH, repeats=repeats) == CRASH
    assert repeats.take(line(CRASH[0], 1))[0].text == note(1)
    assert repeats.take(remark) == [remark]
    assert repeats.take(line(CRASH[1], 1)) == []


def test_memory_is_bounded() -> None:
    repeats = Repeats()
    many = [f"line {n}" for n in range(_LINES + 1)]
    assert shown(many, many, repeats=repeats) == many * 2
    assert not any(start.lines for start in repeats._starts.values())
    for n in range(3 * _CONTAINERS):
        repeats.take(line("x", pod=f"web-{n}"))
    assert len(repeats._starts) == _CONTAINERS


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=7), max_size=6))
def test_whoever_reads_knows_all_that_was_said(starts: list[list[str]]) -> None:
    """The starts can be told from what is shown."""
    repeats = Repeats()
    before: list[str] = []
    for restarts, texts in enumerate(starts):
        seen = [each.text for text in texts for each in repeats.take(line(text, restarts))]
        seen = [text for text in seen if "ended after" not in text]
        if seen and seen[0].startswith("(restart"):
            assert len(before) >= 3
            rest = seen[1:]
            same = len(texts) - len(rest)
            assert rest == texts or (rest == texts[same:] and texts[:same] == before[:same])
            before = texts if len(texts) >= len(before) or rest else before
        else:
            assert seen == texts
            before = texts or before


def test_people_are_spared_and_programs_are_not() -> None:
    events = [line(text, restarts) for restarts in range(3) for text in CRASH]
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    records = [Record(n, now, event) for n, event in enumerate(events, 1)]
    formatter, stream = LineFormatter(), io.StringIO()
    live = TerminalSink(stream, color=False, animated=False)
    live.batch(records)
    lines = [text for record in records for text in formatter.format(record)]
    assert lines == [f"[web ab] {text}" for text in [*CRASH, note(1), note(2)]]
    assert [each.split(" | ")[-1].split(" │ ")[-1] for each in stream.getvalue().splitlines()] == [
        *CRASH,
        note(1),
        note(2),
    ]
    assert sum("NameError" in to_json(record) for record in records) == 3
