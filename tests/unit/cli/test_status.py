"""What `devloop status` says of a session that was killed."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app import connect, only_session
from devloop.app.on_disk import fingerprints_on_disk
from devloop.cli.main import main
from devloop.config.loader import load_project
from tests.support.cluster_objects import deployment
from tests.support.fake_api import fake_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that runs in a cluster; the current directory."""
    with fake_api() as api:
        api.put("/apis/apps/v1/namespaces/dev/deployments/web", deployment())
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        root = tmp_path / "shop"
        root.mkdir()
        (root / "devloop.yaml").write_text(
            "version: 1\nname: shop\nservices:\n  web:\n    image: shop/web\n    build: .\n"
        )
        (root / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
        (root / ".dockerignore").write_text(".devloop\n")
        monkeypatch.chdir(root)
        yield root


def _session(root: Path, pid: int, *, base: dict[str, Any] | None = None, **service: Any) -> None:
    """What a session wrote down last."""
    services = {"web": service} | ({"base": base} if base is not None else {})
    (root / ".devloop").mkdir(exist_ok=True)
    state = {"v": 1, "pid": pid, "mode": "dev", "services": services}
    (root / ".devloop" / "session.json").write_text(json.dumps(state))


@pytest.fixture
def status(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def ask() -> str:
        assert main(["status", "-n", "dev"]) == 0
        return capsys.readouterr().out

    return ask


@pytest.fixture
def gone() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_session_that_was_killed_is_named_with_what_it_was_at(
    project: Path, status: Callable[[], str], gone: int
) -> None:
    _session(project, gone, iter=4, state="working", step="deploy", outcome="ready")
    said = status()
    assert f"the last one was killed: devloop dev, pid {gone}" in said
    assert "last    #4 broke off at deploy" in said
    assert "#4 ready" not in said


def test_what_a_session_is_at_is_not_taken_for_its_end(
    project: Path, status: Callable[[], str]
) -> None:
    _session(project, os.getpid(), iter=4, state="working", step="build", outcome="ready")
    with only_session(load_project(cwd=project, env={}).project):
        said = status()
    assert f"session running: devloop dev, pid {os.getpid()}" in said
    assert "now     #4 at build" in said


@pytest.mark.parametrize(
    ("state", "argv", "namespace"),
    [
        ({"namespace": "dev"}, [], "dev"),
        ({"namespace": "dev"}, ["-n", "other"], "other"),
        ({"namespace": "dev", "ended": "2026-01-01T00:00:00Z"}, [], "default"),
        ({}, [], "default"),
    ],
)
def test_it_looks_where_the_session_is_unless_told_otherwise(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    gone: int,
    state: dict[str, Any],
    argv: list[str],
    namespace: str,
) -> None:
    _session(project, gone, iter=4, state="idle", outcome="ready")
    file = project / ".devloop" / "session.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | state))
    assert main(["status", "-o", "json", *argv]) == 0
    assert json.loads(capsys.readouterr().out)["namespace"] == namespace


def test_a_process_that_got_the_number_of_a_killed_session_is_no_session(
    project: Path, status: Callable[[], str]
) -> None:
    _session(project, os.getpid(), iter=4, state="idle", outcome="ready")
    assert "the last one was killed" in status()


def test_what_was_served_is_compared_with_what_is_on_disk(
    project: Path, status: Callable[[], str], gone: int
) -> None:
    loaded = load_project(cwd=project, env={}, namespace="dev").project
    with connect(loaded) as connection:
        now = fingerprints_on_disk(loaded, {}, connection, mode="dev")["web"]
    serving = {"iter": 3, "image": "", "digest": "", "fingerprint": now}
    _session(project, gone, iter=3, state="idle", outcome="ready", serving=serving)
    assert "disk    as #3\n" in status()
    (project / "app.py").write_text("new")
    assert "disk    changed since #3\n" in status()


def test_what_needs_another_is_compared_with_the_image_of_that(
    project: Path, status: Callable[[], str], gone: int
) -> None:
    (project / "base").mkdir()
    (project / "base/Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    (project / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY app.py .\n")
    (project / "app.py").write_text("old")
    text = (project / "devloop.yaml").read_text()
    (project / "devloop.yaml").write_text(f"{text}    needs: [base]\n  base: {{build: base}}\n")
    loaded = load_project(cwd=project, env={}, namespace="dev").project
    image = "registry.local/base@sha256:" + "a" * 64
    with connect(loaded) as connection:
        base = fingerprints_on_disk(loaded, {}, connection, mode="dev")["base"]
        built = {"base": (base, image)}
        web = fingerprints_on_disk(loaded, {}, connection, mode="dev", built=built)["web"]
    _session(
        project,
        gone,
        serving={"iter": 3, "image": "", "digest": "", "fingerprint": web},
        base={"serving": {"iter": 2, "image": image, "digest": "", "fingerprint": base}},
    )
    assert "disk    as #3\n" in status()
    assert "disk    as #2\n" in status()
    (project / "base/more").write_text("new")
    assert "disk    changed since #3\n" in status()


def test_a_file_that_no_instruction_names_is_no_change_for_it_either(
    project: Path, status: Callable[[], str], gone: int
) -> None:
    (project / "Dockerfile").write_text("FROM scratch\nCOPY app.py .\n")
    (project / "app.py").write_text("old")
    loaded = load_project(cwd=project, env={}, namespace="dev").project
    with connect(loaded) as connection:
        now = fingerprints_on_disk(loaded, {}, connection, mode="dev")["web"]
    serving = {"iter": 3, "image": "", "digest": "", "fingerprint": now}
    _session(project, gone, iter=3, state="idle", outcome="ready", serving=serving)
    (project / "debug.log").write_text("more")
    assert "disk    as #3\n" in status()
    (project / "app.py").write_text("new")
    assert "disk    changed since #3\n" in status()
