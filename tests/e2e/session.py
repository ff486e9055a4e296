"""Driving a real `devloop` process: its event stream, its files, its app.

Every wait has a deadline and, when it passes, shows the events so far: a test that fails tells why.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.event_lines import check_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["APP", "Devloop", "Event", "Workspace", "stage"]

APP = Path(__file__).parent / "app"

Event = dict[str, Any]


class Workspace:
    """A copy of the test app in a folder of its own, edited the way editors do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(APP, root, dirs_exist_ok=True)
        # Another content than in any run before: Docker's cache must not answer for a build.
        (root / "run.txt").write_text(secrets.token_hex(8))

    def save(self, name: str, text: str) -> None:
        """Write atomically: a temporary file in the same folder, renamed over the old one."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp~")
        temporary.write_text(text)
        temporary.replace(path)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def version(self, version: str, name: str = "app.py") -> None:
        """Make the app answer `version`."""
        text = re.sub(r'VERSION = ".*"', f'VERSION = "{version}"', self.read(name))
        self.save(name, text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert old in text
        self.save(name, text.replace(old, new))


def stage(workspace: Workspace, namespace: str, *argv: str) -> str:
    """What `devloop ARGV` prints, where there is no kubeconfig: a stage that needs no cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "devloop", *argv],
        cwd=workspace.root,
        env={
            **os.environ,
            "KUBECONFIG": str(workspace.root / "none"),
            "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
            "IMAGE": f"{namespace}/web",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Devloop:
    """One `devloop dev|run ... --output json` process."""

    def __init__(self, *argv: str, cwd: Path, env: dict[str, str]) -> None:
        self.events: list[Event] = []
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self.stderr: list[str] = []
        self.killed = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devloop", *argv, "--output", "json"],
            cwd=cwd,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read_events, name="devloop-test-events"),
            threading.Thread(target=self._read_stderr, name="devloop-test-stderr"),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self.stderr.extend(self.process.stderr)

    # --- waiting -------------------------------------------------------------------------------

    def wait(self, wanted: Callable[[Event], bool], what: str, seconds: float = 60) -> Event:
        """The next event, from here on, for which `wanted` is true."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                event = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what} in {seconds} s\n{self.story()}") from None
            if event is None:
                raise AssertionError(f"ended before {what}\n{self.story()}")
            self.events.append(event)
            if wanted(event):
                return event

    def finished(self, outcome: str, service: str | None = None, seconds: float = 60) -> Event:
        """The next iteration's end, which must be `outcome`."""
        event = self.wait(
            lambda e: e["type"] == "iteration.finished" and service in (None, e["service"]),
            f"iteration of {service or 'any service'}",
            seconds,
        )
        assert event["outcome"] == outcome, self.story()
        return event

    def ready_at_last(self, seconds: float = 60) -> Event:
        """The end of the iteration that gets ready, after any that a newer save superseded."""
        event = self.wait(
            lambda e: e["type"] == "iteration.finished" and e["outcome"] != "cancelled",
            "iteration that is not superseded",
            seconds,
        )
        assert event["outcome"] == "ready", self.story()
        return event

    def started(self, step: str, seconds: float = 60) -> Event:
        return self.wait(
            lambda e: e["type"] == "step.started" and e["step"] == step, f"step {step}", seconds
        )

    def logged(self, text: str) -> Event:
        """The log line that holds `text`, whether it came before or is still to come."""

        def is_it(event: Event) -> bool:
            return event["type"] == "log" and text in event["text"]

        for event in self.events:
            if is_it(event):
                return event
        return self.wait(is_it, f"log line {text!r}")

    def quiet(self, seconds: float) -> list[Event]:
        """The events of the next `seconds`, logs and pod changes left out."""
        seen: list[Event] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._queue.get(timeout=left)
            except queue.Empty:
                break
            assert event is not None, self.story()
            self.events.append(event)
            if event["type"] not in ("log", "pod.changed", "forward.changed", "step.progress"):
                seen.append(event)
        return seen

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def step(self, name: str, iteration: Event) -> Event:
        """How the step `name` of an iteration that finished came out."""
        for event in self.of("step.finished"):
            if event["iter"] == iteration["iter"] and event["step"] == name:
                return event
        raise AssertionError(f"no step {name} in #{iteration['iter']}\n{self.story()}")

    def story(self) -> str:
        lines = [json.dumps(event) for event in self.events[-60:]]
        return "\n".join([*lines, f"status {self.process.poll()}", *self.stderr[-40:]])

    # --- ending --------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.join(10)

    def kill(self) -> None:
        """End it as the kernel does: nothing is tidied up and the stream breaks off."""
        self.killed = True
        os.killpg(self.process.pid, signal.SIGKILL)
        self.join(10)

    def join(self, seconds: float) -> int:
        """Wait for the end and take in all that is left; the exit status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.story()}") from None
        for reader in self._readers:
            reader.join(5)
        self.events.extend(self._rest())
        return status

    def _rest(self) -> Iterator[Event]:
        while True:
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return
            if event is not None:
                yield event

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def check_stream(self) -> None:
        """What every stream must be: as its schema says and gap-free, each start finished once,
        the end last."""
        for event in self.events:
            check_line(event)
        assert [event["seq"] for event in self.events] == list(range(1, len(self.events) + 1))
        assert self.events[-1]["type"] == "session.ended", self.story()
        # The page is there as soon as its port is, whatever the cluster lets wait.
        begun = [event["type"] for event in self.events if event["type"] != "page.opened"]
        if begun[0] != "session.started":
            # It never began: then it says why and ends, and nothing else happens.
            assert set(begun) <= {"diagnostic", "session.ended"}, self.story()
        assert self.events[-1]["exit_code"] == self.process.returncode
        open_: list[tuple[Any, ...]] = []
        for event in self.events:
            kind, _, verb = event["type"].partition(".")
            key = (kind, event.get("iter"), event.get("step"))
            if kind in ("iteration", "step") and verb == "started":
                assert key not in open_, self.story()
                open_.append(key)
            elif kind in ("iteration", "step") and verb == "finished":
                assert key in open_, (key, self.story())
                open_.remove(key)
        assert not open_, self.story()
