"""How long to wait for the rest of a save. Pure: times are handed in.

A hint before the save is over costs a build that is thrown away; each moment longer is one that
the user waits for every save. What is known of the files decides, and what happened after the last
hints: where saves go on (a formatter, an editor that writes several files), the wait grows until it
covers that, and it shrinks again where they do not.
"""

from __future__ import annotations

# A file that is written in place or put there whole: only another file of the same save may follow.
_SHORTEST_SECONDS = 0.004
# A file that is new under its name: its mode may be set right after it is closed (vim).
_NEW_SECONDS = 0.010
# A file still open, just begun, gone or empty: it comes back or is filled, or not at all.
LONGEST_SECONDS = 0.025


class Pace:
    def __init__(self) -> None:
        self._seconds = _SHORTEST_SECONDS
        self._last: float | None = None

    def window(self, *, unfinished: bool, new: bool) -> float:
        """Seconds without news after which a save counts as over."""
        if unfinished:
            return LONGEST_SECONDS
        return max(self._seconds, _NEW_SECONDS if new else 0.0)

    def hinted(self, last: float) -> None:
        """A hint was given; its last news came at `last`."""
        self._last = last

    def came(self, now: float) -> None:
        """The first news after a hint."""
        if self._last is None:
            return
        gap, self._last = now - self._last, None
        if gap <= LONGEST_SECONDS:
            # One save would have been one hint, had the last one waited this long.
            self._seconds = min(LONGEST_SECONDS, max(gap * 1.5, self._seconds * 2))
        else:
            self._seconds = max(_SHORTEST_SECONDS, self._seconds * 0.8)
