"""Which reader `--output` gives, and that what is written arrives whole."""

from __future__ import annotations

import fcntl
import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from devloop.events import LogLine, Record
from devloop.ui import make_sink, report_early, wants_color
from devloop.ui.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.ui import OutputKind


def record(text: str) -> Record:
    event = LogLine(service="web", pod="web-1", container="web", text=text, ts="2026-01-01T00:00Z")
    return Record(1, "2026-11-23T14:31:07.112Z", event)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_ndjson_writes_one_line_a_record_with_one_write(tmp_path: Path) -> None:
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    sink = make_sink("json", Stream(), env={})
    sink(record("odd \udcff bytes \x1b[31m and\nnewline 漢"))
    sink(record("b"))
    sink.batch([record("c"), record("d")])
    sink.close()
    assert [w.count("\n") for w in writes] == [1, 1, 2]
    assert all(w.isascii() and w.endswith("\n") for w in writes)
    assert json.loads(writes[0])["text"] == "odd \udcff bytes \x1b[31m and\nnewline 漢"
    assert json.loads(writes[0])["ts"] == "2026-01-01T00:00Z"


def test_a_reader_that_went_away_is_an_oserror() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    with pytest.raises(BrokenPipeError):
        make_sink("json", stream, env={})(record("x"))
    stream.close()


def test_long_lines_arrive_whole_in_a_pipe_that_does_not_block() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) | os.O_NONBLOCK)
    got: list[bytes] = []

    def collect() -> None:
        with os.fdopen(read, "rb") as stream:
            got.append(stream.read())

    thread = threading.Thread(target=collect)
    thread.start()
    with os.fdopen(write, "w", encoding="utf-8") as stream:
        Output(stream).write("ü" * 300_000 + "\n")
    thread.join(30)
    assert got == [("ü" * 300_000 + "\n").encode()]


def test_what_was_printed_before_stays_before(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as stream:
        stream.write("first\n")
        Output(stream).write("… then ü\n")
    assert path.read_text() == "first\n... then \\xfc\n"


def kind(output: Any, stream: io.StringIO, **env: str) -> str:
    sink = make_sink(output, stream, env=env)
    name = type(sink).__name__
    if name == "LineSink":
        sink(record("x"))
        name += {"": " quiet", "{": " json"}.get(stream.getvalue()[:1], "")
    sink.close()
    return name


def test_outputs() -> None:
    assert kind("auto", io.StringIO(), TERM="xterm") == "LineSink"
    assert kind("auto", Terminal(), TERM="dumb") == "LineSink"
    assert kind("auto", Terminal(), TERM="xterm", CI="true") == "LineSink"
    assert kind("lines", Terminal(), TERM="xterm") == "LineSink"
    assert kind("json", Terminal(), TERM="xterm") == "LineSink json"
    assert kind("quiet", Terminal(), TERM="xterm") == "LineSink quiet"


def test_color() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    xterm = {"TERM": "xterm"}
    assert wants_color(terminal, "auto", xterm)
    assert not wants_color(pipe, "auto", xterm)
    assert not wants_color(terminal, "auto", {"TERM": "dumb"})
    assert not wants_color(terminal, "auto", xterm | {"CI": "1"})
    assert wants_color(terminal, "auto", xterm | {"CI": "false"})
    assert not wants_color(terminal, "auto", xterm | {"NO_COLOR": "1", "FORCE_COLOR": "1"})
    assert wants_color(terminal, "auto", xterm | {"NO_COLOR": ""})
    assert wants_color(pipe, "auto", xterm | {"FORCE_COLOR": "1"})
    assert wants_color(pipe, "always", {"NO_COLOR": "1"})
    assert not wants_color(terminal, "never", xterm)


@pytest.mark.parametrize(
    ("output", "terminal", "shown"),
    [
        ("lines", False, "devloop: asking\n"),
        ("auto", False, "devloop: asking\n"),
        ("auto", True, "\x1b[2mdevloop: asking\x1b[0m\n"),
        ("live", False, "devloop: asking\n"),
        ("json", True, ""),
        ("quiet", True, ""),
    ],
)
def test_what_is_waited_for_is_told_to_people_alone(
    output: OutputKind, *, terminal: bool, shown: str
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    report_early("asking", output, stream, env={"TERM": "xterm"})
    assert stream.getvalue() == shown
