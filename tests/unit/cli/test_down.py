"""`devloop down` beside a session."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app import only_session
from devloop.cli.main import main
from devloop.cluster.deploy.lease import Holder, lease_path
from devloop.cluster.deploy.ownership import desired
from devloop.cluster.replace.pause import with_pause
from devloop.config.loader import load_project
from devloop.model import WorkloadRef
from tests.support.cluster_objects import deployment
from tests.support.fake_api import FakeApi, fake_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A cluster with one Deployment that devloop created for the project here."""
    with fake_api() as server:
        server.put(WEB, desired(deployment(), None, "shop"))
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        (tmp_path / "devloop.yaml").write_text(
            "version: 1\nname: shop\nservices:\n  web:\n    image: shop/web\n    build: .\n"
        )
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        monkeypatch.chdir(tmp_path)
        yield server


def test_what_devloop_created_is_deleted(api: FakeApi) -> None:
    assert main(["down", "--yes", "-n", "dev"]) == 0
    assert WEB not in api.objects


def test_what_others_have_of_the_same_project_in_their_namespaces_stays(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def has(kind: str, name: str, path: str) -> str:
        thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        api.put(path, desired(thing, None, "shop"))
        return path

    theirs = [
        has("Service", "web", "/api/v1/namespaces/anna/services/web"),
        has("ConfigMap", "web", "/api/v1/namespaces/anna/configmaps/web"),
        has("Namespace", "anna", "/api/v1/namespaces/anna"),
    ]
    own = [
        has("Service", "db", "/api/v1/namespaces/data/services/db"),
        has("Namespace", "shared", "/api/v1/namespaces/shared"),
        has("Service", "mail", "/api/v1/namespaces/shared/services/mail"),
    ]
    (tmp_path / "k8s.yaml").write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: data}}\n---\n"
        "{apiVersion: v1, kind: Namespace, metadata: {name: shared}}\n"
    )
    with (tmp_path / "devloop.yaml").open("a") as file:
        file.write("    deploy: {manifests: [k8s.yaml]}\n")
    for argv in (["--dry-run"], ["--yes"]):
        assert main(["down", "-n", "dev", *argv]) == 0
        said = capsys.readouterr().out
        assert "left     3 in anna: `devloop down -n anna` is for that namespace\n" in said
        assert "Service web in anna" not in said
    assert [path in api.objects for path in theirs] == [True] * 3
    assert [path in api.objects for path in (*own, WEB)] == [False] * 4
    # Whoever names it gets it.
    assert main(["down", "--yes", "-n", "anna"]) == 0
    assert [path in api.objects for path in theirs[:2]] == [False] * 2


@pytest.mark.usefixtures("api")
def test_nothing_is_deleted_while_a_session_runs(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = load_project(cwd=tmp_path, env={}).project
    with only_session(project):
        assert main(["down", "--yes", "-n", "dev"]) == 3
        said = capsys.readouterr().err
        assert "another devloop session runs for shop" in said
        assert f"pid {os.getpid()}" in said
        # To look is allowed.
        assert main(["down", "--dry-run", "-n", "dev"]) == 0
    assert WEB in api.objects


def test_the_lease_of_a_killed_session_goes_too(api: FakeApi) -> None:
    own = Holder.own()
    ended = subprocess.Popen(["true"])
    ended.wait()
    killed = Holder(user=own.user, host=own.host, pid=ended.pid, token="b2")
    path = lease_path(WorkloadRef("deployment", "web", "dev"))
    api.put(path, _lease(killed))
    assert main(["down", "--yes", "-n", "dev"]) == 0
    assert path not in api.objects


def test_the_lease_of_somebody_elses_session_stays(api: FakeApi) -> None:
    path = lease_path(WorkloadRef("deployment", "web", "dev"))
    api.put(path, _lease(Holder(user="anna", host="there", pid=7, token="b2")))
    assert main(["down", "--yes", "-n", "dev"]) == 0
    assert path in api.objects


def _lease(holder: Holder) -> dict[str, Any]:
    return {
        "metadata": {"name": "devloop-web"},
        "spec": {
            "holderIdentity": holder.identity,
            "leaseDurationSeconds": 15,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


@pytest.mark.parametrize("command", [["status"], ["down", "--yes"]])
def test_what_a_killed_session_left_paused_is_resumed(
    api: FakeApi, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    api.put(WEB, with_pause(deployment()))
    assert main([*command, "-n", "dev"]) == 0
    assert "was left paused by a session that was killed: resumed" in capsys.readouterr().out
    assert not api.objects[WEB]["spec"].get("paused")
