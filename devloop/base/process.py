"""The one way to run a program: to its end, line by line, leaving nothing of it behind.

Every program gets its own process group, which is ended as a whole, so that cancelling and
deadlines work the same for builders, `kind`, credential helpers and plugins. Knows none of them,
and none of devloop's error codes: callers translate the exceptions here.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from functools import partial
from typing import IO, TYPE_CHECKING, Required, TypeAlias, TypedDict, Unpack

from devloop.base.cancel import Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.orphans import ended_with_us

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from devloop.base.cancel import Cancel


# How long a program that is to end may take to do so by itself before it is killed.
GRACE = 0.3

# A program that is gone while a child of its own still holds a pipe: how long to read on.
_DRAIN = 0.2

_POLL = 0.25
_LONGEST_LINE = 1 << 20


def is_alive(pid: int) -> bool | None:
    """Whether there is a process of this number; None for one that is not this user's to ask."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return None
    return True


class CannotRun(Exception):  # noqa: N818 - a fact about the machine, not always an error
    """There is no such program, or the system does not run it.

    `missing` is True for a program that is not there; `directory` is the working directory, if that
    is what is missing. `reason` is in the system's words."""

    def __init__(
        self, program: str, reason: str, *, missing: bool = False, directory: Path | None = None
    ) -> None:
        super().__init__(f"{program}: {reason}")
        self.program = program
        self.reason = reason
        self.missing = missing
        self.directory = directory


class Overran(Exception):  # noqa: N818 - the caller knows what it means
    """The program ran longer than its limit and was killed. `out` and `err` are what `capture` had
    read until then."""

    def __init__(self, out: str = "", err: str = "") -> None:
        super().__init__("the program ran longer than its limit")
        self.out = out
        self.err = err


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Call `report(seconds of silence)` whenever another `every` seconds go by without output. What
    `report` raises ends the program."""

    every: float
    report: Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended. `status` is negative for a signal, as subprocess has it."""

    status: int
    out: str
    err: str


class Options(TypedDict, total=False):
    """What `run` and `capture` take alike: `limit` and `grace` in seconds; `given` is the program's
    input, /dev/null without it."""

    cancel: Required[Cancel]
    limit: Required[float]
    given: bytes | None
    cwd: Path | None
    env: Mapping[str, str] | None
    grace: float


def run(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    on_error_line: Callable[[str], None] | None = None,
    silence: Silence | None = None,
    **options: Unpack[Options],
) -> int:
    """The exit status (negative for a signal). `on_line` gets the lines of stdout and stderr as one
    stream, or those of stdout alone if `on_error_line` is there for those of stderr; both run in
    the calling thread.

    Raises Cancelled within about `grace` seconds after the switch, Overran after `limit` seconds,
    and CannotRun."""
    on_err = None if on_error_line is None else _Lines(on_error_line).feed
    return _to_end(argv, _Lines(on_line).feed, on_err, silence=silence, **options)


def capture(
    argv: Sequence[str],
    *,
    on_error_line: Callable[[str], None] | None = None,
    terminal: bool = False,
    **options: Unpack[Options],
) -> Completed:
    """Run a program and return all of its output, both streams apart. For programs whose output is
    an answer, not a log; the rest as `run`.

    `terminal`: it may talk to the user, so that it shares our input, our stderr and, as only the
    foreground may read from a terminal, our process group: its own children are not ended."""
    out, err = bytearray(), bytearray()
    lines = _Lines(on_error_line or (lambda _: None))

    def feed_error(data: bytes) -> None:
        err.extend(data)
        lines.feed(data)

    try:
        status = _to_end(argv, out.extend, feed_error, terminal=terminal, **options)
    except Overran:
        raise Overran(_text(out), _text(err)) from None
    return Completed(status=status, out=_text(out), err=_text(err))


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")


_Feed: TypeAlias = "Callable[[bytes], None]"


def _to_end(
    argv: Sequence[str],
    on_out: _Feed,
    on_err: _Feed | None,
    *,
    cancel: Cancel,
    limit: float,
    silence: Silence | None = None,
    given: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
    terminal: bool = False,
) -> int:
    """The exit status. Both feeds get b"" at the end of their stream; without `on_err` there is
    only one stream."""
    cancel.check()
    with contextlib.ExitStack() as stack:
        wake_read, wake_write = os.pipe()
        stack.callback(os.close, wake_read)
        stack.callback(os.close, wake_write)
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        stderr = subprocess.PIPE if on_err else subprocess.STDOUT
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=None if terminal else stdin,
                stdout=subprocess.PIPE,
                stderr=None if terminal else stderr,
                cwd=cwd,
                env=None if env is None else dict(env),
                start_new_session=not terminal,
            )
        except OSError as error:
            raise _cannot_run(argv[0], cwd, error) from error
        if not terminal:
            stack.enter_context(ended_with_us(process.pid))
        stack.callback(_end, process, grace)
        # All signals are sent from this thread, the only one that reaps: a process id that another
        # thread kept could belong to somebody else by the time it is used.
        stack.enter_context(cancel.closing(partial(os.write, wake_write, b"x")))
        pipes = ((process.stdout, on_out), (process.stderr, on_err))
        feeds = {pipe: feed for pipe, feed in pipes if pipe and feed}
        return _converse(
            process, wake_read, feeds, given=given, cancel=cancel, limit=limit, silence=silence
        )


def _cannot_run(program: str, cwd: Path | None, error: OSError) -> CannotRun:
    reason = error.strerror or str(error)
    missing = isinstance(error, FileNotFoundError)
    if missing and cwd is not None and not cwd.is_dir():
        return CannotRun(program, reason, directory=cwd)
    return CannotRun(program, reason, missing=missing)


def _converse(
    process: subprocess.Popen[bytes],
    wake: int,
    feeds: dict[IO[bytes], _Feed],
    *,
    given: bytes | None,
    cancel: Cancel,
    limit: float,
    silence: Silence | None,
) -> int:
    """The exit status. `wake` is readable once `cancel` is set."""
    rest = memoryview(given or b"")
    started = heard = time.monotonic()
    reported = 0.0
    gone: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        for pipe in feeds:
            selector.register(pipe, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            ready = {key.fileobj for key, _ in selector.select(_POLL if feeds else 0.005)}
            if cancel.is_set():
                raise Cancelled
            now = time.monotonic()
            for pipe in feeds.keys() & ready:
                data = os.read(pipe.fileno(), 1 << 16)
                feeds[pipe](data)
                heard, reported = now, 0.0
                if not data:
                    selector.unregister(pipe)
                    del feeds[pipe]
            if process.stdin is not None and process.stdin in ready:
                rest = _write(process.stdin, rest, selector)
            if now - started > limit:
                raise Overran
            if silence and now - heard - reported >= silence.every:
                reported = now - heard
                silence.report(reported)
            if gone is None and process.poll() is not None:
                gone = now
            if gone is not None and (not feeds or now - gone > _DRAIN):
                return process.wait()


def _write(pipe: IO[bytes], data: memoryview, selector: selectors.BaseSelector) -> memoryview:
    """Write what the program takes now, and close the pipe after all of it; what is left."""
    try:
        rest = data[os.write(pipe.fileno(), data) :] if data else data
    except BlockingIOError:
        return data
    except BrokenPipeError:
        rest = data[:0]  # it does not want all of it, which is its own affair
    if not rest:
        selector.unregister(pipe)
        pipe.close()
    return rest


class _Lines:
    """Calls `on_line` with each whole line of what it is fed."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Empty `data` means the end."""
        self._rest += data
        *whole, self._rest = self._rest.split(b"\n")
        if self._rest and (not data or len(self._rest) > _LONGEST_LINE):
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r"))


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Leave no process of the group behind: ask, wait a moment, kill."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        _wait_unreaped(process, grace)
        _signal(process, signal.SIGKILL)
        process.wait()
    for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
        pipe.close()


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
    with contextlib.suppress(PermissionError):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            process.send_signal(number)  # it shares our group (`terminal`), or is gone
