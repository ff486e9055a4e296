"""A running `devloop dev --output json`, watched from outside: its address and what it serves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from . import shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLL_SECONDS = 0.02
END_SECONDS = 10.0


class Session:
    """One loop as a process of its own group; ended by Ctrl-C when the block is left."""

    def __init__(self, argv: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._recent: deque[str] = deque(maxlen=25)
        self._port: int | None = None
        self._outcome = ""
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="events")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("type") == "forward.changed" and event.get("state") != "closed":
            self._port = self._port or int(event["local"])
        if event.get("type") == "iteration.finished":
            self._outcome = str(event.get("outcome"))
        if event.get("type") != "step.progress":
            self._recent.append(json.dumps(event))

    def address(self, seconds: float) -> str:
        """Wait for the first local port of the session and return its URL."""
        deadline = time.monotonic() + seconds
        while self._port is None:
            self._check(deadline, "a local port")
        return f"http://127.0.0.1:{self._port}/"

    def settled(self, seconds: float) -> None:
        """Wait until the first iteration is over and what is on disk is what runs."""
        deadline = time.monotonic() + seconds
        while self._outcome not in ("ready", "unchanged"):
            if self._outcome == "failed":
                deadline = 0.0
            self._check(deadline, "first deployment")

    def page(self, url: str, wanted: Callable[[str], bool], seconds: float) -> str:
        """Ask for a page until it is the wanted one, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(url, timeout=5) as answer:
                    text: str = answer.read().decode(errors="replace")
                if wanted(text):
                    return text
            self._check(deadline, f"the wanted page at {url}")

    def _check(self, deadline: float, what: str) -> None:
        """Sleep a little; tell the whole story if there is nothing more to wait for."""
        ended = self._process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = f"devloop ended with {self._process.returncode}" if ended else "it did not come"
            raise shell.MachineError(f"no {what}: {why}\n{self._story()}")
        time.sleep(POLL_SECONDS)

    def _story(self) -> str:
        if self._process.poll() is not None:
            self._reader.join(END_SECONDS)
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")
        return "\n".join([*(f"    {event}" for event in self._recent), shell.tail(errors)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
