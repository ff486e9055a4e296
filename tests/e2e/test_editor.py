"""What an editor's task prints: each kind of problem stands at its line in the editor's list until
it is mended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from devloop.editor.tasks import EditorProject, tasks_of
from tests.support.problem_list import ProblemList

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Workspace


class Task:
    """The task `devloop: dev` as an editor runs it, and its list of problems."""

    def __init__(self, cwd: Path, env: dict[str, str], *more: str) -> None:
        (task,) = tasks_of(EditorProject(commands=frozenset({"dev"})))
        self._lines: list[str] = []
        # What each end marker said, and which errors the list had then.
        self._ends: list[tuple[str, list[str]]] = []
        self._seen = 0
        self._list = ProblemList()
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "devloop", *task.arguments, *more],
            cwd=cwd,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="devloop-test-lines")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._list.read(self._lines[-1])
                if self._lines[-1].startswith("devloop: end "):
                    word = self._lines[-1].split()[3]
                    self._ends.append((word, self._list.shown("error")))
                self._changed.notify_all()

    def ends(self, words: tuple[str, ...], errors: list[str], seconds: float = 60) -> None:
        """Wait for the next end marker with one of `words` at which the list has these errors: a
        save may be an iteration and a look at the configuration, which end in any order."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                new, self._seen = self._ends[self._seen :], len(self._ends)
                if any(word in words and shown == errors for word, shown in new):
                    return
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError("\n".join(self._lines[-80:]))

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def task(cluster: Cluster, workspace: Workspace) -> Iterator[Task]:
    env = {
        "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
        "IMAGE": f"{cluster.namespace}/web",
    }
    without_ports = workspace.read("devloop.yaml").partition("    ports:")[0]
    workspace.save("devloop.yaml", without_ports)
    task = Task(workspace.root, env, "--namespace", cluster.namespace)
    yield task
    task.close()


def test_what_is_wrong_stands_at_its_line_until_it_is_mended(
    workspace: Workspace, task: Task
) -> None:
    task.ends(("ready",), [], seconds=120)
    for name, old, wrong, line in (
        ("Dockerfile", "CMD", "RUN exit 3\nCMD", 5),
        ("app.py", 'VERSION = "v0"', "VERSION = broken", 8),
        ("k8s.yaml", "image: web", "image: [web", 14),
        ("devloop.yaml", "timeout: 60s", "timeuot: 60s", 13),
    ):
        good = workspace.read(name)
        workspace.replace(name, old, wrong)
        task.ends(("failed",), [f"{name}:{line}"])
        workspace.save(name, good)
        task.ends(("ready", "unchanged"), [])
