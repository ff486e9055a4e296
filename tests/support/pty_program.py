"""A program on a terminal of its own, to type into and to look at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Self

from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Makes the terminal the one that controls it: Ctrl-C and the like become signals.
_LAUNCHER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class PtyProgram:
    """Runs `argv`; `shown` is all that it wrote."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], columns: int = 80
    ) -> None:
        self._terminal, slave = os.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *argv],
            cwd=cwd,
            env=dict(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = bytearray()
        self._reader = threading.Thread(target=self._read, name="pty")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._terminal)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # so Linux says that the other end was closed
            while data := os.read(self._terminal, 65536):
                self.shown.extend(data)

    def type(self, text: str) -> None:
        """As on a keyboard."""
        data = text.encode()
        while data:
            data = data[os.write(self._terminal, data) :]

    def until(self, text: str, seconds: float = 60.0, *, after: int = 0) -> int:
        """Wait until it has written `text` behind the first `after` bytes; where that ends."""
        wanted = text.encode()
        try:
            until(lambda: self.process.poll() is not None or self._at(wanted, after), seconds)
            until(lambda: self._at(wanted, after), 2.0)
        except AssertionError:
            shown = bytes(self.shown[-3000:]).decode(errors="replace")
            raise AssertionError(f"no {text!r}: {shown}") from None
        return self.shown.index(wanted, after) + len(wanted)

    def _at(self, wanted: bytes, after: int) -> bool:
        return self.shown.find(wanted, after) >= 0

    def ended(self, seconds: float = 30.0) -> int:
        """Its exit status, with all that it wrote."""
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status
