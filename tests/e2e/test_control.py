"""A session steered and watched from outside, as its user does from another terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from tests.e2e.conftest import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]


class Page:
    """What a browser has of the page at `url`, from the beginning to the session's end."""

    def __init__(self, url: str) -> None:
        self._place, _, token = url.partition("/#")
        self._token = {"Authorization": f"Bearer {token}"}
        self._got: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with urlopen(Request(f"{self._place}/events", headers=self._token)) as answer:
            self._got.extend(line.decode() for line in answer)

    def asks(self, **request: str) -> Any:
        fields = {**self._token, "Content-Type": "application/json"}
        body = json.dumps(request).encode()
        with urlopen(Request(f"{self._place}/ask", body, fields), timeout=10) as answer:
            return json.load(answer)

    def all(self) -> list[Any]:
        self._reader.join(10)
        data = [line.removeprefix("data: ") for line in self._got if line.startswith("data: ")]
        return [json.loads(line) for line in data][1:]  # the state is first


def ask(workspace: Workspace, cluster: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devloop", *argv],
        cwd=workspace.root,
        env={**os.environ, **variables(cluster)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def variables(cluster: Cluster) -> dict[str, str]:
    return {
        "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
        "IMAGE": f"{cluster.namespace}/web",
        "PORT": str(free_port()),
    }


def test_the_keys_of_the_live_view_steer_the_session_and_the_terminal_is_given_back(
    workspace: Workspace, cluster: Cluster
) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(workspace.root)
        os.environ.update({**variables(cluster), "TERM": "xterm", "CI": ""})
        argv = ["-m", "devloop", "dev", "-n", cluster.namespace]
        os.execv(sys.executable, [sys.executable, *argv])
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # so Linux says that the other end was closed
            while data := os.read(terminal, 65536):
                shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()

    def types() -> list[str]:
        events = ask(workspace, cluster, "events").stdout.splitlines()
        return [json.loads(line)["type"] for line in events]

    try:
        until(lambda: b"ready in" in shown, 120)
        assert b"r rebuild  b back  p pause" in shown
        os.write(terminal, b"p")
        until(lambda: b"goes on" in shown and "session.paused" in types())
        os.write(terminal, b"p")
        until(lambda: "session.resumed" in types())
        os.write(terminal, b"r")
        until(lambda: types().count("iteration.finished") == 2)
        before = termios.tcgetattr(terminal)[3]
        assert not before & termios.ECHO
        os.write(terminal, b"q")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        pid = 0
        assert status == 0, shown.decode()
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        reader.join(10)
        os.close(terminal)
    assert b"stopped after" in shown


def test_a_session_is_paused_resumed_triggered_and_read_from_outside(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return ask(workspace, cluster, *argv)

    workspace.version("0")
    session = devloop("dev", "--web")
    page = Page(session.wait(lambda e: e["type"] == "page.opened", "page")["url"])
    session.finished("ready", seconds=120)
    cluster.serves("0")

    # Nothing happens while it is paused, and then all of it at once.
    assert run("pause").returncode == 0
    session.wait(lambda e: e["type"] == "session.paused", "pause")
    workspace.version("1")
    workspace.version("2")
    hold = session.wait(lambda e: e["type"] == "hold", "hold of the save")
    assert hold["iter"] is None
    state = json.loads(run("status", "-n", cluster.namespace, "-o", "json").stdout)["session"]
    assert state["running"]
    assert state["paused"]["reason"] == hold["reason"]
    assert not [e for e in session.quiet(1) if e["type"].startswith("iteration")]
    assert cluster.answer() == "0"
    assert run("trigger").returncode == 2
    assert page.asks(op="trigger")["error"]["code"] == "usage/paused"
    assert page.asks(op="resume")["ok"]
    session.ready_at_last()
    cluster.serves("2")

    # A late reader gets what was, then what follows.
    late: list[str] = []
    follower = subprocess.Popen(
        [sys.executable, "-m", "devloop", "events", "--follow"],
        cwd=workspace.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    reader = threading.Thread(target=lambda: late.extend(follower.stdout or ()))
    reader.start()

    done = run("trigger", "--wait", "--fresh", "web")
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout
    built = session.ready_at_last()
    assert "asked for" in session.step("build", built)["detail"]
    cluster.serves("2")

    why = run("why")
    assert why.returncode == 0, why.stderr
    assert "asked for" in why.stdout
    logs = run("logs", "web", "--since", "10m")
    assert "[web " in logs.stdout

    session.interrupt()
    follower.wait(10)
    reader.join(10)
    follower.stdout.close()
    assert [json.loads(line) for line in late] == session.events
    assert page.all() == session.events
    # What was written down says the same.
    assert run("events").stdout.splitlines() == [line.rstrip("\n") for line in late]
    assert run("logs").stdout
    assert run("why").stdout.splitlines()[:2] == why.stdout.splitlines()[:2]
    assert run("trigger").returncode == 3
