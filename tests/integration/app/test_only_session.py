"""Two sessions of one project, as two processes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devloop.app import only_session
from devloop.config.loader import load_project
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.config.schema import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nname: shop\nservices:\n"
        "  web: {build: .}\n  api: {build: {context: ., platform: linux/riscv64}}\n"
    )
    return load_project(cwd=tmp_path, env={}).project


HOLDER = """
import sys
from pathlib import Path
from devloop.app import only_session
from devloop.config.loader import load_project
project = load_project(cwd=Path(sys.argv[1]), env={}).project
with only_session(project):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_session_is_refused_until_the_first_is_gone(project: Project) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(project.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DevloopError) as caught, only_session(project):
        pass
    assert caught.value.code == "env/session-running"
    assert f"pid {holder.pid}" in caught.value.diagnosis.message
    holder.kill()
    holder.communicate(timeout=30)
    # Killed, not ended: the kernel gave the lock back, and no stale file is in the way.
    with only_session(project):
        assert (project.state_dir / ".gitignore").read_text() == "*\n"
