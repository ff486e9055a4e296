"""An edit of devloop.yaml while a session runs: taken over, or said at its line."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.e2e.session import Devloop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Event, Workspace


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def fetched(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
        text: str = response.read().decode()
    return text


@pytest.fixture
def session(cluster: Cluster, workspace: Workspace) -> Iterator[Devloop]:
    workspace.replace("Dockerfile", "CMD", "ARG NOTE=none\nENV NOTE=$NOTE\nCMD")
    workspace.replace("app.py", 'VERSION = "v0"', 'VERSION = __import__("os").environ["NOTE"]')
    workspace.save(".dockerignore", "*.yaml\n")  # else each edit of one is another image
    workspace.save("devloop.yaml", workspace.read("devloop.yaml").partition("    ports:")[0])
    env = {
        "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
        "IMAGE": f"{cluster.namespace}/web",
    }
    session = Devloop("dev", "--namespace", cluster.namespace, cwd=workspace.root, env=env)
    yield session
    session.close()
    if not session.killed:
        session.check_stream()


def reloaded(session: Devloop) -> Event:
    return session.wait(lambda e: e["type"] == "config.reloaded", "config.reloaded")


def problem(session: Devloop, code: str) -> Event:
    found = session.wait(lambda e: e["type"] == "diagnostic" and e["code"] == code, code)
    session.wait(lambda e: e["type"] == "config.checked", "config.checked")
    return found


def test_an_edit_of_devloop_yaml_is_taken_over_or_said_at_its_line(
    cluster: Cluster, workspace: Workspace, session: Devloop
) -> None:
    session.finished("ready", "web", seconds=120)
    cluster.serves("none")

    # A build argument: one iteration, and no word of a new start.
    workspace.replace("devloop.yaml", 'BASE: "${BASE}"', 'BASE: "${BASE}", NOTE: noted')
    key = "services.web.build.args.NOTE"
    assert reloaded(session)["changed"] == [key]
    done = session.ready_at_last()
    started = [e for e in session.of("iteration.started") if e["iter"] == done["iter"]]
    assert (started[0]["trigger"]["kind"], started[0]["trigger"]["paths"]) == ("config", [key])
    cluster.serves("noted")

    # A port: open at once, and nothing is built.
    port = free_port()
    text = workspace.read("devloop.yaml") + f'    ports: ["{port}:8080"]\n'
    iterations = len(session.of("iteration.started"))
    workspace.save("devloop.yaml", text)
    assert reloaded(session)["changed"] == ["services.web.ports"]
    assert fetched(port) == "noted"

    # What is wrong stands at its line until it is mended, and what is right goes on.
    workspace.save("devloop.yaml", text.replace("timeout: 60s", "timeuot: 60s"))
    assert problem(session, "config/unknown-key")["location"]["line"] == 13
    workspace.save("devloop.yaml", text.replace("name: web\n", "name: other\n", 1))
    assert problem(session, "config/needs-restart")["location"]["line"] == 2
    workspace.save("devloop.yaml", text)
    mended = session.wait(lambda e: e["type"] == "config.checked", "config.checked")
    assert mended["valid"]
    assert len(session.of("iteration.started")) == iterations
    assert fetched(port) == "noted"

    # A second service, and no more of it.
    manifest = workspace.read("k8s.yaml").replace("web", "api")
    workspace.save("api.yaml", manifest)
    api = f"  api:\n    image: {cluster.namespace}/api\n"
    api += "    build: {args: {BASE: '${BASE}', NOTE: api}}\n"
    api += "    deploy: {manifests: [api.yaml], replace: in-place}\n"
    workspace.save("devloop.yaml", text + api)
    assert reloaded(session)["services"] == {"added": ["api"], "removed": [], "changed": []}
    session.finished("ready", "api")
    cluster.serves("api", service="api")
    state = json.loads((workspace.root / ".devloop" / "session.json").read_text())
    assert state["services"]["api"]["outcome"] == "ready"
    assert state["services"]["api"]["pods"]
    assert len(cluster.get("leases")["items"]) == 2
    workspace.save("devloop.yaml", text)
    stays = session.wait(
        lambda e: e["type"] == "diagnostic" and e["code"] == "config/service-removed", "a word"
    )
    assert "delete deployment/api" in stays["cause"]
    assert reloaded(session)["services"]["removed"] == ["api"]
    cluster.serves("api", service="api")
    assert len(cluster.get("leases")["items"]) == 1
    session.interrupt()
    assert session.process.returncode == 130
