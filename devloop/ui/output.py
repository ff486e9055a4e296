"""Writing text so that it arrives whole: one write(2) a piece, unbuffered, in any encoding.

Python's own text streams split, buffer and raise on odd characters; a reader on a pipe must see
whole lines, at once. Errors (a pipe without a reader, a full disk) are raised to the caller.
"""

from __future__ import annotations

import io
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from devloop.events import Record


class Output:
    """A place to write text to. `stream` keeps its own buffer, which is flushed once, here."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fd: int | None
        try:
            stream.flush()
            self._fd = stream.fileno()
        except (OSError, AttributeError, io.UnsupportedOperation):
            self._fd = None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            "…".encode(self.encoding)
            self._more = "…"
        except (UnicodeError, LookupError):
            self._more = "..."

    def write(self, text: str) -> None:
        """Write `text` and wait until it is handed over."""
        text = text.replace("…", self._more)
        if self._fd is None:
            known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            self._stream.write(known)
            self._stream.flush()
            return
        data = memoryview(text.encode(self.encoding, "backslashreplace"))
        while data:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                # Another program that shares the terminal made it non-blocking (node does).
                select.select([], [self._fd], [])
                continue
            data = data[written:]


class LineSink:
    """Writes the lines that `to_lines` makes of each record at once, with one write for records
    that come together. Raises `OSError` when nobody reads."""

    interactive = False

    def __init__(self, to_lines: Callable[[Record], list[str]], stream: TextIO) -> None:
        self._to_lines = to_lines
        self._output = Output(stream)

    def __call__(self, record: Record) -> None:
        self.batch([record])

    def batch(self, records: Sequence[Record]) -> None:
        """Write them all."""
        lines = [f"{line}\n" for record in records for line in self._to_lines(record)]
        if lines:
            self._output.write("".join(lines))

    def close(self) -> None:
        """Nothing is held back, so nothing is left to do."""
