"""The live view on a pseudo-terminal: what a person would see at the end, whatever came between."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from devloop.engine.bus import EventBus
from devloop.events import LogLine, Record, SessionEnded
from devloop.ui import make_sink
from devloop.ui.terminal import TerminalSink
from tests.unit.ui.scripts import Script, whole_session

if TYPE_CHECKING:
    from collections.abc import Iterator

XTERM = {"TERM": "xterm-256color"}
SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Screen:
    """What a terminal without reflow makes of bytes: rows of text, a cursor, erasing."""

    def __init__(self, width: int = 80) -> None:
        self.width = width
        self.rows = [""]
        self.colours: list[str] = []
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            match = SEQUENCE.match(text, at)
            if match:
                self._obey(match[2], match[1])
                at = match.end()
                continue
            self._put(text[at])
            at += 1

    def _obey(self, command: str, argument: str) -> None:
        if command == "m":
            self.colours.append(argument)
        elif command == "J":
            self.rows[self._row] = self.rows[self._row][: self._column]
            del self.rows[self._row + 1 :]
        elif command == "A":
            self._row -= int(argument)
        else:
            raise AssertionError(f"unexpected sequence: {argument}{command}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
            return
        if char == "\n":
            self._row += 1
            if self._row == len(self.rows):
                self.rows.append("")
            return
        assert char >= " ", f"unexpected control {char!r}"
        if self._column == self.width:
            self._column = 0
            self._put("\n")
        row = self.rows[self._row].ljust(self._column)
        self.rows[self._row] = row[: self._column] + char + row[self._column + 1 :]
        self._column += 1

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.rows)


class Pty:
    def __init__(self, columns: int = 80) -> None:
        self.master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.data = b""
        self._reading = threading.Event()
        self._reading.set()
        self.resize(columns)
        self._thread = threading.Thread(target=self._read, name="pty")
        self._thread.start()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def stop_reading(self) -> None:
        self._reading.clear()

    def _read(self) -> None:
        while True:
            self._reading.wait()
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed
                return
            if not data:
                return
            self.data += data

    def close(self) -> str:
        self._reading.set()
        # Both: macOS hangs up on close, Linux gives EIO once the last writer is gone.
        self.stream.close()
        self._thread.join(30)
        os.close(self.master)
        return self.data.decode()


@pytest.fixture
def pty() -> Iterator[Pty]:
    pty = Pty()
    yield pty
    if not pty.stream.closed:
        pty.close()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log(n: int, text: str = "") -> Record:
    event = LogLine(service="web", pod="web-1-ab", container="web", text=text or f"line {n}")
    return Record(n, now(), event)


def test_a_session_looks_as_without_animation(pty: Pty) -> None:
    sink = make_sink("auto", pty.stream, env=XTERM)
    assert isinstance(sink, TerminalSink)
    records = [replace(r, ts=r.ts) for r in whole_session()]
    for record in records:
        sink(record)
    sink.close()
    screen = Screen()
    screen.feed(pty.close())
    still = Pty()
    plain = TerminalSink(still.stream, color=False, animated=False)
    for record in records:
        plain(record)
    plain.close()
    assert screen.text == still.close().replace("\r\n", "\n")
    assert "32" in screen.colours
    assert "● ready in 6.7 s   #0 9f2c41   http://localhost:8080" in screen.text


def test_log_lines_stay_whole_beside_the_spinner(pty: Pty) -> None:
    sink = make_sink("live", pty.stream, env=XTERM)
    script = Script()
    script.session()
    script.begin("app.py")
    for record in script.records:
        sink(replace(record, ts=now()))
    for n in range(300):
        sink(log(n, f"line-{n}-" + "x" * (n % 120)))
        if n % 50 == 0:
            time.sleep(0.12)
    pictures = set(re.findall("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", pty.data.decode(errors="ignore")))
    sink.close()
    screen = Screen()
    screen.feed(pty.close())
    assert len(pictures) > 2
    assert not re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", screen.text), "the status line is gone at the end"
    joined = screen.text.replace("\n", "")
    at = 0
    for n in range(300):
        at = joined.index(f"│ line-{n}-" + "x" * (n % 120), at)


@pytest.mark.parametrize("env", [{"TERM": "xterm-256color"}, {"TERM": "linux"}])
def test_a_narrower_terminal_loses_no_line(pty: Pty, env: dict[str, str]) -> None:
    sink = make_sink("live", pty.stream, env=env, color="never")
    script = Script()
    script.begin("app.py")
    script.begin("a_file_with_a_very_long_name.py")
    for record in script.records:
        sink(replace(record, ts=now()))
    for n, columns in enumerate((80, 30, 100, 20, 80)):
        pty.resize(columns)
        sink(log(n))
        time.sleep(0.15)
    sink.close()
    data = pty.close()
    assert re.findall(r"line \d", data) == [f"line {n}" for n in range(5)]
    # Where the terminal wraps anew the status line is erased from its first row on.
    assert ("\x1b[1A\x1b[J" in data) == (env["TERM"] != "linux")


def test_no_color_and_dumb_terminals(pty: Pty) -> None:
    sink = make_sink("live", pty.stream, env={"TERM": "dumb"})
    for record in whole_session():
        sink(record)
    sink.close()
    assert "\x1b" not in pty.close()


def test_no_color_still_moves_but_does_not_paint(pty: Pty) -> None:
    sink = make_sink("live", pty.stream, env=XTERM | {"NO_COLOR": "1"})
    for record in whole_session():
        sink(record)
    sink.close()
    screen = Screen()
    screen.feed(pty.close())
    assert not screen.colours


def test_a_terminal_that_cannot_show_symbols() -> None:
    pty = Pty()
    stream = os.fdopen(os.dup(pty.stream.fileno()), "w", encoding="ascii")
    sink = make_sink("live", stream, env=XTERM, color="never")
    for record in whole_session():
        sink(record)
    sink(log(1, "grün"))
    sink.close()
    stream.close()
    data = pty.close()
    assert data.isascii()
    assert "* ready in 6.7 s" in data
    assert "gr\\xfcn" in data


def test_a_stopped_terminal_slows_nobody(pty: Pty) -> None:
    sink = make_sink("live", pty.stream, env=XTERM)
    bus = EventBus()
    bus.subscribe("live", sink, capacity=1000)
    pty.stop_reading()
    for n in range(20_000):
        bus.publish(log(n, f"line {n} " + "y" * 50).event)
    bus.publish(SessionEnded(exit_code=0))
    assert bus.close(0.2) == ("live",)
    sink.close()
    data = pty.close()
    assert data.startswith("web ab") or "line 0 " in data


def test_a_terminal_that_is_gone_is_an_oserror() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        sink = make_sink("live", stream, env=XTERM)
        with pytest.raises(BrokenPipeError):
            sink(log(1))
        animated = TerminalSink(stream, color=False, animated=True)
        animated(log(1))
        assert animated._thread is not None
        animated._thread.join(30)
        with pytest.raises(BrokenPipeError):
            animated(log(2))
        animated.close()
