"""Reading single keys from the terminal that a session shows itself on.

The terminal is only borrowed: it echoes and waits for whole lines again when the reader is closed,
and nothing is read or set while another job has it. Knows nothing of what a key means.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
from typing import TYPE_CHECKING, Any

from devloop.base.threads import supervised

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


# So often, in seconds, it is looked at whether the terminal is still set: a shell that had the job
# stopped (Ctrl-Z) and brought it back may have set it otherwise.
_LOOK = 1.0

# The index of the local flags in what tcgetattr returns, and what is taken away from them.
_LOCAL = 3
_LINEWISE = termios.ICANON | termios.ECHO


class KeyReader:
    """Calls `on_key` with each character that is typed on `stream`, in a thread of its own."""

    def __init__(
        self,
        stream: TextIO,
        on_key: Callable[[str], None],
        *,
        in_foreground: Callable[[int], bool] | None = None,
    ) -> None:
        """Raises OSError where `stream` is no terminal."""
        self._fd = stream.fileno()
        self._on_key = on_key
        self._in_foreground = in_foreground or _in_foreground
        try:
            self._saved: list[Any] = termios.tcgetattr(self._fd)
        except termios.error as error:
            raise OSError(*error.args) from error
        # One that sets the terminal and one that puts it back at the end.
        self._lock = threading.Lock()
        self._closed = self._ended = False
        self._reader, self._writer = os.pipe()
        self._thread = supervised("keys", self._run)
        self._thread.start()

    def restore(self) -> None:
        """Set the terminal as it was; from any thread, at any time."""
        with self._lock:
            self._closed = True
            if self._in_foreground(self._fd):
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)

    def close(self) -> None:
        """End the thread, with the terminal as it was. Not from `on_key`."""
        self.restore()
        if self._ended:
            return
        self._ended = True
        os.write(self._writer, b"\0")
        self._thread.join(1.0)
        if not self._thread.is_alive():
            os.close(self._reader)
            os.close(self._writer)

    def _run(self) -> None:
        try:
            while self._borrow():
                ready, _, _ = select.select([self._fd, self._reader], [], [], _LOOK)
                if self._reader in ready:
                    return
                if self._fd not in ready:
                    continue
                if not self._in_foreground(self._fd):
                    # To read would stop the whole process (SIGTTIN).
                    select.select([self._reader], [], [], _LOOK)
                    continue
                typed = os.read(self._fd, 64)
                if not typed:
                    return  # nobody types any more
                for key in typed.decode("utf-8", "replace"):
                    self._on_key(key)
        except OSError:
            return  # the terminal was closed

    def _borrow(self) -> bool:
        """Have each key handed over at once and unseen; False once it is given back."""
        with self._lock:
            if self._closed:
                return False
            if not self._in_foreground(self._fd):
                return True
            with contextlib.suppress(termios.error):
                now = termios.tcgetattr(self._fd)
                if now[_LOCAL] & _LINEWISE:
                    now[_LOCAL] &= ~_LINEWISE
                    termios.tcsetattr(self._fd, termios.TCSANOW, now)
        return True


def _in_foreground(fd: int) -> bool:
    """Whether the terminal is this job's; one that controls nothing is everybody's."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
