"""Running other programs: always with a deadline, never with a shell, never reading our stdin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Root's programs, which a plain user's PATH (and some containers' PATH) leaves out.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MachineError(Exception):
    """The machine cannot be made ready; the message says what failed and what to do."""


def find(program: str) -> str | None:
    """Return the full path of a program, root's directories included, or None."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PATH)


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    data: bytes | None = None,
) -> str:
    """Run a program to its end and return its stdout.

    `env` is added to our own environment.  The program leads a process group of its own, which is
    killed as a whole when `timeout` seconds have passed.

    Raises:
        MachineError: it failed, timed out or does not exist; the message ends with its last words.
    """
    command = [str(part) for part in argv]
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"{command[0]}: {error.strerror}") from error
    try:
        out, err = process.communicate(data, timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise MachineError(f"`{brief(command)}` did not end within {timeout:.0f} s") from error
        raise
    if process.returncode != 0:
        words = tail((err or out).decode(errors="replace"))
        raise MachineError(f"`{brief(command)}` ended with status {process.returncode}:\n{words}")
    return out.decode(errors="replace")


def succeeds(
    argv: Sequence[str | Path], *, timeout: float = 20, env: Mapping[str, str] | None = None
) -> bool:
    """Tell whether a program exists and ends with status 0 in time."""
    try:
        run(argv, timeout=timeout, env=env)
    except MachineError:
        return False
    return True


def output(
    argv: Sequence[str | Path],
    *,
    timeout: float = 20,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return a program's stdout without the white space around it; empty if it failed."""
    try:
        return run(argv, timeout=timeout, cwd=cwd, env=env).strip()
    except MachineError:
        return ""


def brief(command: Sequence[str]) -> str:
    """Return a command line short enough for a message."""
    line = " ".join(command)
    return line if len(line) <= 160 else line[:157] + "..."


def tail(text: str, lines: int = 25) -> str:
    """Return the last lines of a text, indented."""
    return "\n".join("    " + line for line in text.rstrip().splitlines()[-lines:])
