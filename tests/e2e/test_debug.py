"""An editor attaches to a service's process in the cluster, and again after a hot restart."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import free_port
from tests.support.dap import Dap
from tests.support.machine import cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

START = 180.0
DEBUGPY = "debugpy==1.8.14"
_ANSWER = "        data = body.encode()\n"
_STOPS = "            body = 'looked at ' + VERSION\n"


def _debugpy(directory: Path) -> None:
    options = ("--platform", "any", "--implementation", "py", "--abi", "none", "--no-deps")
    where = ("--only-binary", ":all:", "--quiet", "--target", str(directory))
    argv = [sys.executable, "-m", "pip", "install", *options, *where, DEBUGPY]
    subprocess.run(argv, check=True, timeout=120)


class Visitor:
    """A request that is answered when the program goes on."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/looked"
        self._answer = ""
        self._thread = threading.Thread(target=self._ask, name="devloop-test-visitor")
        self._thread.start()

    def _ask(self) -> None:
        with urllib.request.urlopen(self._url, timeout=60) as response:
            self._answer = response.read().decode()

    def answer(self) -> str:
        self._thread.join(60)
        return self._answer


def test_a_breakpoint_is_hit_before_and_after_a_hot_restart(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    port, debug = free_port(), free_port()
    installed = cache.made(f"debugpy-{cache.key(DEBUGPY)}", _debugpy)
    shutil.copytree(installed / "debugpy", workspace.root / "debugpy")
    workspace.replace("app.py", _ANSWER, f"        if self.path == '/looked':\n{_STOPS}{_ANSWER}")
    # Not below the program: what pip installs is elsewhere as well.
    packages = "COPY debugpy /usr/lib/python3/dist-packages/debugpy\n"
    workspace.replace("Dockerfile", "COPY . .\n", f"{packages}COPY app.py run.txt ./\n")
    workspace.replace("devloop.yaml", "      replace: in-place\n", "")
    workspace.replace(
        "devloop.yaml", "    ports:", f"    debug: {{port: {debug}, kind: python}}\n    ports:"
    )
    line = workspace.read("app.py").splitlines().index(_STOPS.rstrip("\n")) + 1
    configuration: dict[str, Any] = {
        "justMyCode": True,
        "pathMappings": [{"localRoot": str(workspace.root), "remoteRoot": "/app"}],
    }
    place = str(workspace.root / "app.py"), line

    session = devloop("dev", PORT=str(port))
    session.finished("ready", seconds=START)
    (container,) = cluster.get("deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["timeoutSeconds"] == 600
    pods = {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]}

    for version in ("v0", "v1"):
        if version != "v0":
            workspace.version(version)
            session.finished("ready")
            assert "process restarted" in session.of("step.finished")[-1]["detail"]
        with Dap(debug) as editor:
            editor.attach(configuration, {workspace.root / "app.py": [line]})
            visitor = Visitor(port)
            assert editor.stopped() == place
            editor.go_on()
            assert visitor.answer() == f"looked at {version}"
    assert {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]} == pods
    forwards = {event["local"]: event.get("debugger") for event in session.of("forward.changed")}
    assert forwards == {port: "", debug: "python"}
    assert not [e for e in session.of("diagnostic") if e["code"].startswith("debug/")]
