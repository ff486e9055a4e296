"""The live view's shell: one thread that owns the terminal.

What stays is only ever added; below it one status line is erased and written again. Everything
goes out in single writes, and what comes in while one is under way is put into the next, so a
flood of log lines costs few writes and a slow terminal slows nobody but this reader.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.threads import supervised
from devloop.events import ConfigReloaded, LogLine, SessionStarted
from devloop.ui.live_parts import LogPrefixes, Row, glyphs_for, paint, plain_text, render
from devloop.ui.live_state import LiveState
from devloop.ui.output import Output
from devloop.ui.repeats import Repeats
from devloop.ui.text import with_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from rich.text import Text

    from devloop.events import Record


# Seconds between two pictures of the spinner.
_TICK = 0.1

# How much may wait for the terminal, in characters; then the bus drops what is too much.
_WAITING = 256 * 1024

# A file is quoted up to this size, in bytes.
_SOURCE_LIMIT = 1024 * 1024


class TerminalSink:
    """Shows records on a terminal. `animated`: with a status line, which needs a terminal that can
    erase one; then it is `interactive`: a person may be shown an answer to a key."""

    def __init__(
        self,
        stream: TextIO,
        *,
        color: bool,
        animated: bool,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        width: Callable[[], int] | None = None,
    ) -> None:
        self._output = Output(stream)
        self._color = color
        self._clock = clock
        self._width = width or (lambda: _terminal_width(stream))
        self._reflows = _reflows(env if env is not None else os.environ)
        self._glyphs = glyphs_for(self._output.encoding)
        self._root = ""
        self._state = LiveState(self._glyphs, self._read_source)
        self._logs = LogPrefixes(self._glyphs, color=color)
        self._repeats = Repeats()
        self._changed = threading.Condition()
        self._pending: list[str] = []
        self._waiting = 0
        self._error: OSError | None = None
        self._closed = False
        self._status = ""  # as it stands on the terminal now
        self._status_cells = 0
        self._services: tuple[str, ...] = ()
        self._logs_of: str | None = None  # None: of all services, "": of none
        self.interactive = animated
        self._thread: threading.Thread | None = None
        if animated:
            self._thread = supervised("terminal", self._run)
            self._thread.start()

    def __call__(self, record: Record) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting < _WAITING or self._error is not None or self._closed
            )
            if self._error is not None:
                raise self._error
            text = self._text(record)
            if self._thread is not None:
                # Also without text: the status line may be another one now.
                self._pending.append(text)
                self._waiting += len(text)
                self._changed.notify_all()
                return
        if text:
            self._output.write(text)

    def batch(self, records: Sequence[Record]) -> None:
        """Show them all; what the terminal is too slow for is put together anyway."""
        for record in records:
            self(record)

    def close(self) -> None:
        """Write what waits, erase the status line. Gives up on a terminal that is stopped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)

    # --- keys ----------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Show a remark that is no event; only where it is interactive. Never waits."""
        with self._changed:
            lines = self._lines(Row.of((text, "soft"), hang=2), self._width())
            self._pending.append("".join(f"{self._show(line)}\n" for line in lines))
            self._changed.notify_all()

    def next_logs(self) -> str:
        """Show the logs of each service in turn, then none, then all again; which, in words."""
        with self._changed:
            several = self._services if len(self._services) > 1 else ()
            choices = (None, *several, "")
            at = choices.index(self._logs_of) if self._logs_of in choices else -1
            self._logs_of = choices[(at + 1) % len(choices)]
            if self._logs_of is None:
                return "logs are shown" if not several else "logs of all services are shown"
            return f"logs of {self._logs_of} are shown" if self._logs_of else "no logs are shown"

    # --- text ----------------------------------------------------------------------------------

    def _text(self, record: Record) -> str:
        event = record.event
        if isinstance(event, LogLine):
            if self._logs_of not in (None, event.service):
                return ""
            return "".join(
                f"{self._logs.line(each.service, each.pod, each.container, each.text)}\n"
                for each in self._repeats.take(event)
            )
        if isinstance(event, SessionStarted):
            self._root = event.root
            self._services = event.services
            self._logs.expect(event.services)
        if isinstance(event, ConfigReloaded):
            self._services = with_changes(self._services, event.services)
            self._logs.expect(self._services)
            self._state.expect(self._services)
        rows = self._state.take(record)
        if not rows:
            return ""
        width = self._width()
        return "".join(f"{self._show(line)}\n" for row in rows for line in self._lines(row, width))

    def _lines(self, row: Row, width: int) -> list[Text]:
        return render(row, max(20, width), self._glyphs)

    def _show(self, line: Text) -> str:
        if not self._color:
            return plain_text(line)
        line.rstrip()
        return paint(line)

    def _read_source(self, path: str) -> list[str] | None:
        place = Path(self._root, path)
        with contextlib.suppress(OSError, ValueError):
            if place.is_file() and place.stat().st_size <= _SOURCE_LIMIT:
                return place.read_text(encoding="utf-8", errors="replace").splitlines()
        return None

    # --- the thread that writes ----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._paint():
                pass
        except OSError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _paint(self) -> bool:
        """Wait for something to show and show it; False at the end."""
        with self._changed:
            tick = _TICK if self._state.busy else None
            self._changed.wait_for(lambda: self._pending or self._closed, tick)
            text = "".join(self._pending)
            self._pending.clear()
            self._waiting = 0
            self._changed.notify_all()
            end = self._closed
            row = None if end else self._state.status(self._clock())
        width = max(20, self._width())
        status, cells = "", 0
        if row is not None:
            # Room for the `^C` that a terminal puts behind it, and for the last column, after
            # which some wrap at once.
            (line,) = self._lines(row, width - 3)
            status, cells = self._show(line), line.cell_len
        if text or status != self._status:
            # Without a newline at its end the status line would be one with the next log line.
            self._output.write(self._erase(width) + text + status)
            self._status, self._status_cells = status, cells
        return not end

    def _erase(self, width: int) -> str:
        if not self._status:
            return ""
        rows = -(-self._status_cells // width) if self._reflows else 1
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}\x1b[J"


def _terminal_width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _reflows(env: Mapping[str, str]) -> bool:
    """Whether the terminal wraps long lines anew when it gets narrower; then the status line may
    stand on several rows. Where it does not, going up would erase lines that are to stay."""
    term = env.get("TERM", "")
    if "TMUX" in env:
        return True
    return "XTERM_VERSION" not in env and not term.startswith(("linux", "rxvt", "screen"))
