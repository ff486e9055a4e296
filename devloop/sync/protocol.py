"""How devloop talks to its agent in a container: the agents, their start, requests, answers.

An agent is started once, ahead of the first save, reads requests on standard input, writes each
file beside its place and renames it, and ends with its input. Where devloop made the image, its own
program is in it (see agent/README.md): it needs nothing else of the image, checks what it writes,
and can start the container's process anew. For all other images there are two short scripts: one
for Python, which starts no process for a file, and one for any POSIX shell with dd, mv and rm
(busybox has them), which starts two.

Pure: bytes in, bytes out. Answers are lines: `ready`, `lacks WHAT`, `bad STEP REASON` (steps of a
batch count from 1) and `done` after each batch; at any time `event ...` and what the supervisor of
the process answers (`ProcessNews`), who also keeps what the container's files are (`content ...`)
for as long as they are there: `IMAGES` until somebody changes them, then `UNKNOWN` until the one
who did gives them a mark.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.base.linux_signals import signal_name
from devloop.base.supervisor import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.sync.changes import FileChange


Kind = Literal["agent", "python", "sh"]

_TAKE_CODE_PYTHON = (
    "import os\n"
    "def t(n):\n"
    " b=b''\n"
    " while len(b)<n:\n"
    "  c=os.read(0,n-len(b))\n"
    "  if not c:os._exit(0)\n"
    "  b+=c\n"
    " return b\n"
    "os.write(1,b'python\\n')\n"
    "exec(t(int(t(8))))"
)
_TAKE_CODE_SHELL = (
    "echo sh; IFS= read -r n || exit 0; c=; while [ $n -gt 0 ]; do IFS= read -r l || exit 0; "
    'c="$c$l\n"; n=$((n-1)); done; eval "$c"'
)
_EITHER = 'command -v python3 >/dev/null 2>&1 && exec python3 -ISc "$1"\n' + _TAKE_CODE_SHELL


@dataclass(frozen=True, slots=True)
class Start:
    """One way to start an agent. The first line of output names the interpreter that came up, and
    `code` is what it then waits for."""

    name: str
    argv: tuple[str, ...]


STARTS = {
    "agent": Start("agent", (PROGRAM, "serve")),
    "either": Start("either", ("sh", "-c", _EITHER, "devloop-sync", _TAKE_CODE_PYTHON)),
    "sh": Start("sh", ("sh", "-c", _TAKE_CODE_SHELL, "devloop-sync")),
    "python": Start("python", ("python3", "-ISc", _TAKE_CODE_PYTHON)),
}
# A Python that is there but cannot run leaves the shell; an image without a shell may have Python.
ANY_IMAGE = ("agent", "either", "sh", "python")
DEV_IMAGE = ("agent",)
GREETINGS = {"agent 1 supervised": True, "agent 1 alone": False}
"""What the agent of version 1 begins with, and whether the container's process is supervised."""
IMAGES, UNKNOWN = "image", "unknown"


@dataclass(frozen=True, slots=True)
class ProcessNews:
    """What became of the container's process: `started`; `unstarted` yet, for it would serve what
    was served before the last changes; `listening` again where the one before did; `waiting` for
    that, with what of its ports is `missing`, what is `back`, and what `other` ports listen;
    `ended`, as `how` says in words and `by_itself` or not; `restarting`: a restart that was asked
    for comes with this start. `count` is the start's number. `refused` a restart, `lost` the
    supervisor, or `mixed`: somebody else changes the files too; then `how` says why."""

    kind: Literal[
        "started",
        "unstarted",
        "listening",
        "waiting",
        "ended",
        "restarting",
        "refused",
        "mixed",
        "lost",
    ]
    count: int = 0
    how: str = ""
    by_itself: bool = False
    missing: frozenset[int] = frozenset()
    back: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()


def news(line: str) -> ProcessNews | None:
    """What a line tells of the process; None for an answer to something else."""
    match line.removeprefix("event ").removeprefix("state ").split(" "):
        case ["started", _, _, count]:
            return ProcessNews("started", int(count))
        case ["unstarted", _]:
            return ProcessNews("unstarted")
        case ["listening" | "restarting" as kind, count]:
            return ProcessNews(kind, int(count))
        case ["waiting", count, *ports]:
            missing, back, other = map(_ports, ports)
            return ProcessNews("waiting", int(count), missing=missing, back=back, other=other)
        case ["ended", what, number, by, count]:
            ended = (
                f"exited {number}" if what == "exit" else f"was ended by {signal_name(int(number))}"
            )
            return ProcessNews("ended", int(count), ended, by == "itself")
        case ["refused", "mark", *_]:
            return ProcessNews("mixed", how="somebody else changes its files as well")
        case ["refused", "restart", *why]:
            return ProcessNews("refused", how=" ".join(why))
        case ["lost"]:
            return ProcessNews("lost", how="the container's supervisor is gone")
    return None


def _ports(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(","))) if text != "-" else frozenset()


def is_aside(line: str) -> bool:
    """Whether a line answers no request of a batch."""
    asides = ("event ", "state ", "holding ", "restarting ", "refused ", "content ")
    return line.startswith(asides)


@cache
def code(kind: Kind) -> bytes:
    """The agent itself, in the form in which its interpreter waits for it."""
    name = {"python": "agent.py", "sh": "agent.sh"}[kind]
    text = resources.files("devloop.sync").joinpath(name).read_bytes()
    if kind == "python":
        return b"%08d" % len(text) + text
    lines = [line for line in text.split(b"\n") if line.strip() and not line.startswith(b"#")]
    return b"%d\n" % len(lines) + b"\n".join(lines) + b"\n"


def request(kind: Kind, change: FileChange) -> bytes:
    """One step of a batch, without a file's content."""
    return _for_shell(change) if kind == "sh" else _in_fields(change, checked=kind == "agent")


def permission(change: FileChange) -> bytes:
    """Asks devloop's own agent whether the container's user may do this: `yes` or `no REASON`."""
    root, path = os.fsencode(change.target.root), os.fsencode(change.target.path)
    if change.placed is None:
        return _framed(b"may", root, path, b"gone", b"")
    what = {"file": b"put", "dir": b"dir", "symlink": b"link"}[change.placed.entry.type]
    return _framed(b"may", root, path, what, change.placed.owner.encode())


def keep_content(kind: Kind, *, keep: bool) -> bytes:
    """What follows a file's content: whether it was what it should be. The agent sees that for
    itself."""
    if kind == "agent":
        return b""
    answer = b"1" if keep else b"0"
    return answer if kind == "python" else answer + b"\n"


def closing(kind: Kind) -> bytes:
    """What ends a batch and asks for `done`."""
    return b"1\nfinish\n" if kind == "sh" else _framed(b"done")


def hold() -> bytes:
    """Asks the supervisor to stay when the process ends."""
    return _framed(b"hold")


def content() -> bytes:
    """Asks the supervisor what the container's files are."""
    return _framed(b"content")


def mark(word: str) -> bytes:
    """Names what they are once a batch is through, unless a step of it failed: in hexadecimal, 64
    digits at most."""
    return _framed(b"mark", word.encode())


def restart(stop_timeout: float) -> bytes:
    """The last step of a batch: the process is asked to end, after `stop_timeout` seconds killed,
    and started again, unless a step before it failed."""
    return _framed(b"restart", b"%d" % (stop_timeout * 1000))


def settle() -> bytes:
    """The process serves as it is: the ports that are missing are not awaited any more."""
    return _framed(b"settle")


def _framed(*fields: bytes) -> bytes:
    body = b"\0".join(fields)
    return b"%08d" % len(body) + body


def _in_fields(change: FileChange, *, checked: bool) -> bytes:
    root, path = os.fsencode(change.target.root), os.fsencode(change.target.path)
    placed = change.placed
    fields = [b"gone", root, path]
    if placed is not None:
        mode, owner = b"%o" % placed.entry.mode, placed.owner.encode()
        match placed.entry.type:
            case "file":
                fields = [b"put", root, path, mode, owner, b"%d" % placed.entry.size]
                fields += [placed.entry.digest.encode()] if checked else []
            case "dir":
                fields = [b"dir", root, path, mode, owner]
            case "symlink":
                fields = [b"link", root, path, owner, os.fsencode(placed.entry.link)]
    return _framed(*fields)


def _for_shell(change: FileChange) -> bytes:
    root = os.fsencode(change.target.root)
    parts = os.fsencode(change.target.path).split(b"/") if change.target.path else []
    placed = change.placed
    if placed is None:
        return _call([b"enter", b"look", root, *parts[:-1]], [b"gone", *parts[-1:]])
    way = [b"enter", b"make", root, *parts[:-1]]
    mode, owner = b"%o" % placed.entry.mode, placed.owner.encode()
    match placed.entry.type:
        case "file":
            # A new file gets its mode from the umask, without a process, where that can give it.
            by_umask = placed.entry.mode & 0o7111 == 0 and placed.entry.mode & 0o600 == 0o600
            umask = b"%o" % (0o777 & ~placed.entry.mode) if by_umask else b"077"
            size = b"%d" % placed.entry.size
            put = [b"put", umask, b"-" if by_umask else mode, owner, size, *parts[-1:]]
            return _call(way, put)
        case "dir":
            return _call(way, [b"dir", mode, owner, *parts[-1:]])
        case "symlink":
            return _call(way, [b"link", owner, os.fsencode(placed.entry.link), *parts[-1:]])


def _call(*commands: Sequence[bytes]) -> bytes:
    lines = b"\n".join(b" ".join(map(_quoted, words)) for words in commands)
    return b"%d\n%s\n" % (lines.count(b"\n") + 1, lines)


def _quoted(word: bytes) -> bytes:
    """One word of a POSIX shell, whatever bytes it is made of (2.2.2 Single-Quotes)."""
    return b"'" + word.replace(b"'", b"'\\''") + b"'"
