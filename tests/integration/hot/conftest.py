"""The agents as they run in containers, here as processes of their own on real files."""

# Names of any bytes:
# ruff: noqa: PTH115, PTH118, PTH123

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.model import ContextEntry
from devloop.sync.changes import FileChange, SyncedFile
from devloop.sync.protocol import STARTS, closing, code, keep_content, request
from devloop.sync.rules import SyncTarget
from tests.support.agent import needs_linux, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.sync.protocol import Kind

# The same tests for each: the interpreters that images have under these names.
INTERPRETERS = (pytest.param("agent", marks=needs_linux), "python3", "dash", "bash", "busybox")


class Agent:
    """One agent, spoken to as the syncer does."""

    def __init__(self, interpreter: str) -> None:
        kinds: dict[str, Kind] = {"agent": "agent", "python3": "python"}
        self.kind = kinds.get(interpreter, "sh")
        argv = list(STARTS[self.kind].argv)
        if interpreter == "agent":
            argv[0] = str(program())
        elif interpreter == "busybox":
            argv[:1] = ["busybox", "sh"]
        elif interpreter != "python3":
            argv[0] = interpreter
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env={"PATH": _path()}
        )
        if interpreter == "agent":
            assert self.line() == "agent 1 alone"
            return
        assert self.line() == self.kind
        self.send(code(self.kind))
        assert self.line() == "ready"

    def send(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().decode().removesuffix("\n")

    def apply(self, *steps: tuple[FileChange, bytes | None], keep: bool = True) -> list[str]:
        """Each step with its content; what the agent complained of."""
        for change, content in steps:
            self.send(request(self.kind, change))
            if content is not None:
                sent = b"?" * len(content) if self.kind == "agent" and not keep else content
                self.send(sent + keep_content(self.kind, keep=keep))
        self.send(closing(self.kind))
        answers = list(iter(self.line, "done"))
        assert "" not in answers, "the agent ended"
        return answers

    def close(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


def _path() -> str:
    return os.environ["PATH"]


@pytest.fixture(scope="module", params=INTERPRETERS)
def interpreter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "agent" and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="module")
def agent(interpreter: str) -> Iterator[Agent]:
    """An agent that serves one test after the other, as it serves one save after the other."""
    made = Agent(interpreter)
    yield made
    made.close()


@pytest.fixture
def own_agent(interpreter: str) -> Iterator[Agent]:
    """An agent that the test ends."""
    made = Agent(interpreter)
    yield made
    if made.process.poll() is None:
        made.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    made.mkdir()
    return made


Step = tuple[FileChange, bytes | None]


def put(root: Path, path: str, content: bytes = b"", mode: int = 0o644) -> Step:
    digest = hashlib.sha256(content).hexdigest()
    return _to(root, path, ContextEntry("file", mode, len(content), digest)), content


def directory(root: Path, path: str, mode: int = 0o755) -> Step:
    return _to(root, path, ContextEntry("dir", mode)), None


def link(root: Path, path: str, to: str) -> Step:
    return _to(root, path, ContextEntry("symlink", 0o777, link=to)), None


def gone(root: Path, path: str) -> Step:
    return FileChange(target=SyncTarget(str(root), path)), None


def _to(root: Path, path: str, entry: ContextEntry) -> FileChange:
    target = SyncTarget(str(root), path)
    return FileChange(target=target, placed=SyncedFile(target=target, entry=entry, source=path))


def tree(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """All below `root`: path -> type, mode, content or link target. What goes away under the look
    is left out."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for directory_, directories, files in os.walk(os.fsencode(root)):
        for name in (*directories, *files):
            full = os.path.join(directory_, name)
            with contextlib.suppress(FileNotFoundError):
                found[os.fsdecode(os.path.relpath(full, os.fsencode(root)))] = _shown(full)
    return found


def _shown(full: bytes) -> tuple[str, int, bytes]:
    status = os.lstat(full)
    if stat.S_ISLNK(status.st_mode):
        return "symlink", 0, os.readlink(full)
    if stat.S_ISDIR(status.st_mode):
        return "dir", status.st_mode & 0o7777, b""
    with open(full, "rb") as file:
        return "file", status.st_mode & 0o7777, file.read()
