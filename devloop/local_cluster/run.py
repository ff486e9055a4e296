"""Runs what `devloop cluster` stands on: docker and kind, as argv lists, never through a shell.

Every command has a deadline, dies with its whole process group when cancelled, and leaves its last
words to whoever has to explain a failure. Knows nothing about clusters or registries.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.base.cancel import Cancel

__all__ = ["CompletedProgram", "docker", "docker_unreachable", "kind", "last_words", "run"]

_GRACE = 1.0  # seconds between TERM and KILL

_INSTALL = {
    "docker": {
        "linux": "install Docker Engine: https://docs.docker.com/engine/install/",
        "darwin": "install Docker Desktop: brew install --cask docker, then start it",
    },
    "kind": {
        "linux": "install kind: https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
        " (or: go install sigs.k8s.io/kind@latest)",
        "darwin": "install kind: brew install kind",
    },
}

_DAEMON_AWAY = (
    "cannot connect to the docker daemon",
    "is the docker daemon running",
    "error during connect",
    "permission denied while trying to connect",
    "failed to connect to the docker api",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedProgram:
    """A program that ended. `code` is negative for a signal, as subprocess has it."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


def last_words(finished: CompletedProgram, lines: int = 8) -> tuple[str, ...]:
    """The last non-empty lines of what a program said, standard error first choice."""
    text = finished.err if finished.err.strip() else finished.out
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def docker(
    *args: str, cancel: Cancel, timeout: float = 30.0, given: str | None = None, check: bool = True
) -> CompletedProgram:
    """Run `docker ARGS`; `timeout` in seconds, `given` goes to standard input.

    Errors: env/tool-missing, env/docker-unreachable, and cluster/provision for another failure
    unless `check` is False."""
    finished = run(("docker", *args), cancel=cancel, timeout=timeout, given=given)
    if not finished.ok and docker_unreachable(finished.err):
        raise _unreachable(finished)
    if check and not finished.ok:
        raise _failed(finished)
    return finished


def kind(
    *args: str,
    cancel: Cancel,
    timeout: float,
    given: str | None = None,
    on_line: Callable[[str], None] | None = None,
) -> CompletedProgram:
    """Run `kind ARGS`; `on_line` gets each line of its progress. Errors as `docker`."""
    finished = run(("kind", *args), cancel=cancel, timeout=timeout, given=given, on_line=on_line)
    if not finished.ok:
        raise _unreachable(finished) if docker_unreachable(finished.err) else _failed(finished)
    return finished


def docker_unreachable(err: str) -> bool:
    """Whether docker's or kind's standard error says that the daemon cannot be talked to."""
    low = err.lower()
    return any(words in low for words in _DAEMON_AWAY)


def run(
    argv: Sequence[str],
    *,
    cancel: Cancel,
    timeout: float,
    given: str | None = None,
    on_line: Callable[[str], None] | None = None,
) -> CompletedProgram:
    """Run a program to its end; `timeout` in seconds. `on_line` gets standard error line by line.

    `given` must fit a pipe (a few KiB): it is written before anything is read.
    Errors: env/tool-missing, cluster/provision at the deadline, `Cancelled`."""
    cancel.check()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own group: Ctrl-C is ours to pass on
        )
    except FileNotFoundError:
        raise _missing(argv[0]) from None
    with process, cancel.closing(lambda: _signal(process, signal.SIGTERM)):
        try:
            out, err = _converse(process, given, time.monotonic() + timeout, cancel, on_line)
        except BaseException:
            _end(process)
            raise
    finished = CompletedProgram(argv=tuple(argv), code=process.returncode, out=out, err=err)
    cancel.check()
    return finished


def _converse(
    process: subprocess.Popen[bytes],
    given: str | None,
    deadline: float,
    cancel: Cancel,
    on_line: Callable[[str], None] | None,
) -> tuple[str, str]:
    if given is not None and process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given.encode())
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    heard: dict[IO[bytes], bytearray] = {}
    told = 0
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                heard[pipe] = bytearray()
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise _late(process, heard)
            for key, _ in selector.select(min(left, 1.0)):
                chunk = os.read(key.fd, 65536)
                pipe = next(p for p in heard if p.fileno() == key.fd)
                heard[pipe] += chunk
                if not chunk:
                    selector.unregister(pipe)
                elif pipe is process.stderr and on_line is not None:
                    told = _tell(heard[pipe], told, on_line)
            cancel.check()
    process.wait(max(0.1, deadline - time.monotonic()))
    out, err = (bytes(heard[p]).decode(errors="replace") if p else "" for p in _pipes(process))
    return out, err


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes] | None, IO[bytes] | None]:
    return process.stdout, process.stderr


def _tell(said: bytearray, told: int, on_line: Callable[[str], None]) -> int:
    end = said.rfind(b"\n") + 1
    for line in bytes(said[told:end]).splitlines():
        on_line(line.decode(errors="replace"))
    return max(told, end)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group outlives its leader while a child runs, so the leader's own end says nothing.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _missing(tool: str) -> DevloopError:
    hints = _INSTALL.get(tool, {})
    system = "darwin" if sys.platform == "darwin" else "linux"
    return DevloopError.of(
        Code.ENV_TOOL_MISSING,
        f"{tool} is not installed, or not on PATH",
        cause=f"`devloop cluster` runs {tool}",
        suggestions=tuple(filter(None, [hints.get(system)])),
    )


def _unreachable(finished: CompletedProgram) -> DevloopError:
    return DevloopError.of(
        Code.ENV_DOCKER_UNREACHABLE,
        "the Docker daemon does not answer",
        cause=(last_words(finished, 1) or ("docker failed",))[0],
        suggestions=(
            "start Docker Desktop"
            if sys.platform == "darwin"
            else "start it: sudo systemctl start docker",
            "check `docker info`, DOCKER_HOST and `docker context ls`",
        ),
    )


def _failed(finished: CompletedProgram) -> DevloopError:
    what = " ".join(finished.argv[:3])
    return DevloopError.of(
        Code.CLUSTER_PROVISION, f"`{what}` ended with {finished.code}", detail=last_words(finished)
    )


def _late(process: subprocess.Popen[bytes], heard: dict[IO[bytes], bytearray]) -> DevloopError:
    argv = process.args if isinstance(process.args, (list, tuple)) else (process.args,)
    out, err = (bytes(heard[p]).decode(errors="replace") if p else "" for p in _pipes(process))
    finished = CompletedProgram(argv=tuple(str(a) for a in argv), code=-1, out=out, err=err)
    return DevloopError.of(
        Code.CLUSTER_PROVISION,
        f"`{' '.join(finished.argv[:3])}` did not end in time",
        detail=last_words(finished),
    )
