"""The notes, kept in memory; safe to use from several threads."""

from __future__ import annotations

import itertools
import threading

LONGEST = 500
MOST = 100


class NoteError(ValueError):
    """A note that is not taken; the message says why."""


class Notes:
    """The newest notes, at most MOST of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._notes: dict[int, str] = {}

    def add(self, text: str) -> dict[str, int | str]:
        """Keep a note; raises `NoteError`."""
        text = " ".join(text.split())
        if not text:
            raise NoteError("a note needs some text")
        if len(text) > LONGEST:
            raise NoteError(f"a note has at most {LONGEST} characters")
        with self._lock:
            number = next(self._ids)
            self._notes[number] = text
            if len(self._notes) > MOST:
                del self._notes[min(self._notes)]
        return {"id": number, "text": text}

    def remove(self, number: int) -> bool:
        """Whether there was such a note."""
        with self._lock:
            return self._notes.pop(number, None) is not None

    def all(self) -> list[dict[str, int | str]]:
        """Newest first."""
        with self._lock:
            return [{"id": n, "text": self._notes[n]} for n in sorted(self._notes, reverse=True)]
