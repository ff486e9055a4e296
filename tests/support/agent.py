"""The agent for containers as a process of its own: its program, a supervisor, its peers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import pytest

from devloop.base.platforms import own_platform
from tests.support.machine import agent
from tests.support.waiting import runs, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the agent is for Linux")

OTHER_PROGRAM = "DEVLOOP_TEST_AGENT"
"""The variable that names another program to test, as one made with a compiler's sanitizers."""

# The person's own, as tests have another: there the compiler would be downloaded again.
_CACHE = os.environ.get("XDG_CACHE_HOME")


@cache
def program() -> Path:
    """This machine's program, built from the sources as they are now."""
    if other := os.environ.get(OTHER_PROGRAM):
        return Path(other)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("XDG_CACHE_HOME", raising=False)
        if _CACHE is not None:
            environment.setenv("XDG_CACHE_HOME", _CACHE)
        return agent.ensure() / own_platform().replace("/", "-")


def note(name: str, argv: Sequence[str]) -> Path:
    """What a supervisor of that name leaves for the next one once files were changed: agent/note.c,
    whose hash is FNV-1a."""
    digest = 0xCBF29CE484222325
    for byte in name.encode() + b"".join(os.fsencode(word) + b"\0" for word in argv):
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return Path(f"/dev/shm/.devloop-{digest:016x}")


class Supervised:
    """A command under `agent supervise`, which listens at a name of its own."""

    def __init__(
        self,
        *argv: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        preexec: Callable[[], object] | None = None,
        stdin: int = subprocess.DEVNULL,
        cwd: Path | None = None,
        keep: Sequence[int] = (),
        name: str = "",
    ) -> None:
        self.name = name or uuid.uuid4().hex
        self.note = note(self.name, argv)
        self.process = subprocess.Popen(
            [str(program()), "supervise", "--socket", self.name, *options, "--", *argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            preexec_fn=preexec,  # noqa: PLW1509 - what the command inherits is the test
            pass_fds=keep,
        )
        self._peers: list[Peer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.close()
        if self.process.poll() is None:
            # One whose parent ends just then may be missed once.
            left = {*descendants(self.pid), *descendants(self.pid)}
            self.process.kill()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self.note.is_dir() and not self.note.is_symlink():
            self.note.rmdir()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def line(self) -> str:
        return self.out.readline().decode().removesuffix("\n")

    def give(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ended(self) -> int:
        """Its exit status, as a shell says it."""
        status = self.process.wait(20)
        return status if status >= 0 else 128 - status

    def peer(self, *, greeted: bool = True) -> Peer:
        """A new peer; the state that it was greeted with is its `first`, unless that is still to
        be heard."""
        made = Peer(self.name, greeted=greeted)
        self._peers.append(made)
        return made


class Peer:
    """What `serve` is to the supervisor."""

    def __init__(self, name: str, *, greeted: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.settimeout(20)
            until(lambda: self._connected(f"\0devloop-agent/{name}"))
            self.first = self.hear() if greeted else ""
        except BaseException:
            self._socket.close()
            raise

    def _connected(self, address: str) -> bool:
        """Whether it is: just started, the supervisor does not listen yet."""
        try:
            self._socket.connect(address)
        except ConnectionRefusedError:
            return False
        return True

    def say(self, text: str) -> None:
        self._socket.send(text.encode())

    def hear(self) -> str:
        return self._socket.recv(1024).decode()

    def ask(self, text: str) -> str:
        self.say(text)
        return self.hear()

    def hear_all(self) -> list[str]:
        """What it is told until the supervisor lets go of it."""
        return list(iter(self.hear, ""))

    def close(self) -> None:
        self._socket.close()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started and that still run, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [n for child in map(int, children) for n in (child, *descendants(child))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a process holds. Sizes are in KiB; `proportional` shares pages with whoever else has
    them, `dirty` are those that are nobody else's and were written to."""

    descriptors: tuple[str, ...]
    resident: int
    proportional: int
    dirty: int
    zombies: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        sizes = dict(re.findall(r"(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()))
        below = descendants(pid)
        return cls(
            descriptors=tuple(sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())),
            resident=int(sizes["Rss"]),
            proportional=int(sizes["Pss"]),
            dirty=int(sizes["Private_Dirty"]),
            zombies=sum(not runs(process) for process in below),
            children=len(below),
        )

    def __str__(self) -> str:
        return (
            f"{self.resident} KiB resident, {self.proportional} proportional, {self.dirty} dirty; "
            f"{len(self.descriptors)} descriptors, {self.children} children, {self.zombies} zombies"
        )


# Forks what vanishes at once, what stays in its group and what leaves it.
RESTARTED = (
    "sh",
    "-c",
    "(sleep 0 &); sleep 1000 & (setsid sh -c 'exec sleep 1000' &); trap : HUP; wait",
)


def restart_often(times: int, every: int = 100) -> Iterator[tuple[int, Footprint]]:
    """Start one command anew so many times, by peers that come and go: after `every` so many how
    many it were, and what the supervisor holds while the command has its three processes."""
    with Supervised(*RESTARTED) as supervised:
        holder = supervised.peer()
        assert holder.ask("hold") == "holding 1"
        for count in range(1, times + 1):
            peer = supervised.peer()
            assert (
                peer.ask(f"restart {1 if count % 3 == 0 else 20_000}") == f"restarting {count + 1}"
            )
            while not peer.hear().startswith("started"):
                pass
            peer.close()
            while not holder.hear().startswith("started"):
                pass
            if count % every == 0:
                until(lambda: [runs(pid) for pid in descendants(supervised.pid)] == [True] * 3)
                yield count, Footprint.of(supervised.pid)


def child_of(state: str) -> int:
    """The process of `started PID ...`, `state started PID ...` or `event started PID ...`."""
    words = state.split()
    assert "started" in words, state
    return int(words[words.index("started") + 1])


def python(code: str) -> tuple[str, ...]:
    """The argv that runs some Python quickly."""
    return (sys.executable, "-SEs", "-c", code)
