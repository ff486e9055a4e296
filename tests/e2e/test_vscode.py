"""A real VS Code runs the task that devloop wrote; its Problems panel is what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.vscode import CHROMIUM, SERVER, VsCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Workspace

pytestmark = pytest.mark.skipif(
    SERVER is None or CHROMIUM is None, reason="there is no code-server or no Chromium here"
)


def test_the_problems_panel_is_what_is_wrong(
    cluster: Cluster, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.replace("devloop.yaml", "name: web", f"name: web\nnamespace: {cluster.namespace}")
    without_ports = workspace.read("devloop.yaml").partition("    ports:")[0]
    workspace.save("devloop.yaml", without_ports)
    env = {
        "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
        "IMAGE": f"{cluster.namespace}/web",
    }
    subprocess.run(
        [sys.executable, "-m", "devloop", "editor", "vscode", "--write"],
        cwd=workspace.root,
        env={**os.environ, **env},
        check=True,
        timeout=60,
    )
    with VsCode(workspace.root, tmp_path / "vscode", env) as editor:
        editor.command("Tasks: Run Build Task")
        editor.pick("devloop: dev")
        cluster.serves("v0", within=120)
        for name, old, wrong, line in (
            ("Dockerfile", "CMD", "RUN exit 3\nCMD", 5),
            ("app.py", 'VERSION = "v0"', "VERSION = broken", 8),
            ("k8s.yaml", "image: web", "image: [web", 14),
            ("devloop.yaml", "timeout: 60s", "timeuot: 60s", 14),
        ):
            good = workspace.read(name)
            workspace.replace(name, old, wrong)
            editor.lists([f"{name}:{line}"])
            workspace.save(name, good)
            editor.lists([])
