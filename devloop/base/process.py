"""Runs one program to its end, line by line, and leaves nothing of it behind.

Every builder that is a program goes through here, so that cancelling works the same for all: the
program gets its own process group, and the group is ended as a whole. Knows nothing of Docker.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from devloop.base.cancel import Cancel

__all__ = ["GRACE", "Overran", "Quiet", "run"]

# How long a cancelled program may take to end by itself before it is killed.
GRACE = 0.3

# A program that is gone while a child of its own still holds the pipe: how long to read on.
_DRAIN = 0.2

_POLL = 0.25
_LONGEST_LINE = 1 << 20


class Overran(Exception):  # noqa: N818 - the caller turns it into a diagnosis with the step's name
    """The program ran longer than its limit and was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Call `tell(seconds of silence)` whenever another `every` seconds went by without output."""

    every: float
    tell: Callable[[float], None]


def run(
    argv: Sequence[str],
    *,
    cancel: Cancel,
    on_line: Callable[[str], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit: float,
    quiet: Quiet | None = None,
) -> int:
    """The exit status (negative for a signal). stdout and stderr come as one stream of lines.

    Raises Cancelled within about `GRACE` after the switch, Overran after `limit` seconds, and
    env/tool-missing when there is no such program. `on_line` runs in the calling thread."""
    cancel.check()
    with contextlib.ExitStack() as stack:
        wake_read, wake_write = os.pipe()
        stack.callback(os.close, wake_read)
        stack.callback(os.close, wake_write)
        process = _start(argv, cwd, env)
        stack.callback(_end, process)
        # All signals are sent from this thread, the only one that reaps: a process id that another
        # thread kept could belong to somebody else by the time it is used.
        stack.enter_context(cancel.closing(lambda: _wake(wake_write)))
        _read(process, wake_read, cancel=cancel, on_line=on_line, limit=limit, quiet=quiet)
        return process.wait()


def _wake(fd: int) -> None:
    os.write(fd, b"x")


def _start(
    argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise DevloopError.of(
                Code.CONFIG_CONTEXT_MISSING, f"the folder {cwd} does not exist"
            ) from error
        raise DevloopError.of(
            Code.ENV_TOOL_MISSING, f"{argv[0]} is not installed or not on PATH"
        ) from error
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_TOOL_MISSING, f"{argv[0]} cannot be run", cause=error.strerror or str(error)
        ) from error


def _read(
    process: subprocess.Popen[bytes],
    wake: int,
    *,
    cancel: Cancel,
    on_line: Callable[[str], None],
    limit: float,
    quiet: Quiet | None,
) -> None:
    pipe = process.stdout
    assert pipe is not None  # noqa: S101 - tells the type checker what Popen was asked for
    started = heard = time.monotonic()
    told = 0.0
    gone: float | None = None
    open_pipe = True
    lines = _Lines()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(_POLL if open_pipe else 0.005)}
            if cancel.is_set():
                raise Cancelled
            now = time.monotonic()
            if open_pipe and pipe.fileno() in ready:
                data = os.read(pipe.fileno(), 1 << 16)
                for line in lines.feed(data):
                    on_line(line)
                heard, told = now, 0.0
                if not data:
                    selector.unregister(pipe)
                    open_pipe = False
            if now - started > limit:
                raise Overran
            if quiet and now - heard - told >= quiet.every:
                told = now - heard
                quiet.tell(told)
            if gone is None and process.poll() is not None:
                gone = now
            if gone is not None and (not open_pipe or now - gone > _DRAIN):
                return


class _Lines:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that `data` completes; empty `data` means the end."""
        self._rest += data
        *whole, self._rest = self._rest.split(b"\n")
        if self._rest and (not data or len(self._rest) > _LONGEST_LINE):
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process of the group behind: ask, wait a moment, kill."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        _wait_unreaped(process, GRACE)
        _signal(process, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _wait_unreaped(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for the leader but leave it a zombie, so that the group's id stays ours to kill."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        time.sleep(seconds)
        return
    deadline = time.monotonic() + seconds
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process.pid, flags) is not None:
            return
        time.sleep(0.01)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
