"""The first minutes of somebody who has a Dockerfile and an app and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

from tests.e2e.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop

APP = """\
from http.server import BaseHTTPRequestHandler, HTTPServer

class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello one"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("", {port}), Hello).serve_forever()
"""
DOCKERFILE = 'FROM {base}\nWORKDIR /app\nCOPY . .\nCMD ["python3", "app.py"]\n'


def command(folder: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devloop", *argv],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(port: int, wanted: str) -> None:
    deadline = time.monotonic() + 15
    got = ""
    while got != wanted:
        assert time.monotonic() < deadline, f"{got!r} is served, not {wanted!r}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
                got = answer.read().decode()
        except OSError as error:
            got = str(error)


def test_init_and_dev_serve_an_app_that_has_a_dockerfile_and_nothing_else(
    tmp_path: Path, cluster: Cluster, devloop: Callable[..., Devloop]
) -> None:
    """And `devloop dev` alone has the same, and the doctor finds all well."""
    registry, port = os.environ["DEVLOOP_TEST_REGISTRY"], free_port()
    folder = tmp_path / "hello"
    folder.mkdir()
    base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    (folder / "app.py").write_text(APP.format(port=port))
    env = {"DEVLOOP_NAMESPACE": cluster.namespace, "DEVLOOP_REGISTRY": registry}

    done = command(folder, "init", **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ports: [{port}]  # app.py:11" in done.stdout
    assert done.stdout.endswith("wrote devloop.yaml, k8s.yaml\nnext: devloop dev\n")

    session = devloop("dev", cwd=folder, **env)
    session.finished("ready")
    answers(port, "hello one")
    app = folder / "app.py"
    app.write_text(app.read_text().replace("one", "two"))
    session.wait(lambda e: e["type"] == "step.finished" and e["step"] == "sync", "hot change")
    answers(port, "hello two")
    session.interrupt()

    (folder / "devloop.yaml").unlink()
    (folder / "k8s.yaml").unlink()
    session = devloop("dev", cwd=folder, **env)
    session.finished("ready")
    answers(port, "hello two")
    session.interrupt()
    assert "manifests: [.devloop/k8s.yaml]" in "".join(session.stderr)

    examined = command(folder, "doctor", "-o", "json", **env)
    told = json.loads(examined.stdout)
    states = {each["hop"]: each["state"] for each in told["hops"]}
    assert set(states.values()) <= {"ok", "warning"}, examined.stdout
    assert (examined.returncode, len(states)) == (0, 13)
    assert cluster.get("deployments")["items"]
    assert not (folder / ".devloop" / "project").exists()
