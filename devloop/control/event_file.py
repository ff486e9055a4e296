"""Keeping `.devloop/events.ndjson`: the event stream as it was, for when its session is over.

Bounded: a file that is full becomes `events.1.ndjson`, in place of the one before. Sessions are
appended to each other, each begins with number 1. A fault of the disk costs what was to be written
and is logged once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from devloop.events import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from devloop.events import Record


_LOG = logging.getLogger(__name__)

_NAME, _OLD = "events.ndjson", "events.1.ndjson"

# Bytes of one file; there are two.
_FULL = 8 * 1024 * 1024


class EventFile:
    """A reader of the stream that writes it down. `full`: bytes of a file."""

    def __init__(self, state_dir: Path, *, full: int = _FULL) -> None:
        self._path, self._old = state_dir / _NAME, state_dir / _OLD
        self._full = full
        self._size = -1  # not known yet
        self._reported = False

    def __call__(self, record: Record) -> None:
        self.batch([record])

    def batch(self, records: Sequence[Record]) -> None:
        """Append them all, with one write."""
        data = "".join(f"{to_json(record)}\n" for record in records).encode()
        try:
            self._append(data)
        except OSError as error:
            self._size = -1
            if not self._reported:
                self._reported = True
                _LOG.error("%s cannot be written: %s", self._path, error.strerror or error)

    def _append(self, data: bytes) -> None:
        # Opened each time: somebody may have deleted `.devloop`, or this file in it. What an app
        # logs may be no one else's to read.
        if self._size >= self._full:
            self._path.replace(self._old)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if self._size < 0 and size and os.pread(handle, 1, size - 1) != b"\n":
                data = b"\n" + data  # a session was killed in the middle of a line
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            self._size = size + len(data)
        finally:
            os.close(handle)


def read_events(state_dir: Path, *, last: bool = True) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """What was written down, each line as it is and as an object; with `last` that of the last
    session alone. What cannot be read is left out."""
    found: list[tuple[bytes, dict[str, Any]]] = []
    for name in (_OLD, _NAME):
        with contextlib.suppress(OSError), (state_dir / name).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        continue
                    if last and record.get("seq") == 1:
                        found.clear()
                    found.append((line, record))
    yield from found
