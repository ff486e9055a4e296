"""devloop's own program in development containers (agent/README.md): its place there, its command
line and its bytes. What it is used for is others' business."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


DIRECTORY = "/.devloop"
PROGRAM = f"{DIRECTORY}/agent"
_SIGTERM = 15
# s6-overlay, systemd, and what images link to them; runit and s6 by themselves.
_INITS = frozenset({"/init", "/sbin/init", "/usr/sbin/init", "/bin/init", "/lib/systemd/systemd"})
_INIT_NAMES = frozenset({"systemd", "s6-svscan", "runsvdir", "runit-init", "openrc-init"})


def supervise(stop_signal: int = _SIGTERM, debug: tuple[str, int] | None = None) -> tuple[str, ...]:
    """What stands before a container's command; `stop_signal` is the image's, `debug` the kind of
    debugger and its port."""
    stop = () if stop_signal == _SIGTERM else ("--stop-signal", str(stop_signal))
    attach = ("--debug", f"{debug[0]}:{debug[1]}") if debug else ()
    return (PROGRAM, "supervise", *stop, *attach, "--")


def is_debugged(supervisor: Sequence[str]) -> bool:
    """Whether `supervisor`, as `supervise` gives it, starts the command for an editor to attach."""
    return "--debug" in supervisor


def under(command: Sequence[str], supervisor: Sequence[str]) -> list[str]:
    """A container's command under `supervisor`, as `supervise` gives it; alone when that is empty,
    or when it has to be process 1 itself. It may be under one already."""
    alone = list(command)
    if alone[:1] == [PROGRAM] and "--" in alone:
        alone = alone[alone.index("--") + 1 :]
    return alone if not alone or is_init(alone) else [*supervisor, *alone]


def is_init(command: Sequence[str]) -> bool:
    """Whether a command starts an init system, which works as process 1 only."""
    return command[0] in _INITS or command[0].rpartition("/")[2] in _INIT_NAMES


def program(platform: str) -> bytes | None:
    """The program for OS/ARCH; None where there is none, or devloop was installed without."""
    name = platform.replace("/", "-", 1)
    found = resources.files("devloop").joinpath("agents", name)
    return found.read_bytes() if "/" not in name and found.is_file() else None
