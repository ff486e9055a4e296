"""`devloop restore`, and `devloop rollback` without a session: what is refused and what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from devloop.app import connect, only_session
from devloop.app.good_images import ServiceImages
from devloop.app.rollback import leases_of
from devloop.base.cancel import Cancel
from devloop.cli.main import main
from devloop.cluster.deploy.lease import Holder, lease_path
from devloop.cluster.deploy.original import keep_original
from devloop.cluster.replace.pause import with_pause
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from devloop.model import Fingerprint, ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment
from tests.support.fake_api import FakeApi, fake_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.schema import Project

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
LEASE = lease_path(WorkloadRef("deployment", "web", "dev"))
READY = {"updatedReplicas": 1, "replicas": 1, "readyReplicas": 1, "observedGeneration": 99}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nname: shop\nservices:\n  web:\n    image: shop/web\n    build: .\n"
    )
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    return load_project(cwd=tmp_path, env={}).project


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Project) -> Iterator[FakeApi]:
    """A cluster with a Deployment that devloop has changed since `nginx:1.27`."""
    with fake_api() as server:
        before = server.put(WEB, {**deployment("nginx:1.27"), "status": READY})
        context = json.loads(server.kubeconfig(tmp_path).read_text())["current-context"]
        keep_original(project.state_dir, context, before)
        server.put(WEB, {**deployment("r/web@sha256:1"), "status": READY})
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


def somebody(api: FakeApi) -> None:
    holder = Holder(user="anna", host="there", pid=7, token="b2")
    spec = {
        "holderIdentity": holder.identity,
        "leaseDurationSeconds": 15,
        "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    api.put(LEASE, {"metadata": {"name": "devloop-web"}, "spec": spec})


def image(api: FakeApi) -> str:
    found: str = api.objects[WEB]["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def test_what_was_there_before_is_there_again(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", "--dry-run", "-n", "dev"]) == 0
    assert "would be as it was before devloop: nginx:1.27" in capsys.readouterr().out
    assert main(["restore", "-n", "dev", "-o", "json"]) == 0
    (done,) = json.loads(capsys.readouterr().out)["workloads"]
    assert (done["workload"], done["outcome"]) == ("deployment/web", "restored")
    assert (done["images"], done["ready"]) == ({"web": "nginx:1.27"}, "1/1 ready")
    assert image(api) == "nginx:1.27"
    assert LEASE not in api.objects
    assert main(["restore", "-n", "dev"]) == 0
    assert "devloop has not changed it" in capsys.readouterr().out


def test_what_a_killed_session_left_paused_is_resumed_first(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(WEB, with_pause({**deployment("r/web@sha256:1"), "status": READY}))
    assert main(["restore", "web", "-n", "dev"]) == 0
    assert "was left paused by a session that was killed: resumed" in capsys.readouterr().out
    assert not api.objects[WEB]["spec"].get("paused")
    assert image(api) == "nginx:1.27"


@pytest.mark.parametrize("command", ["restore", "rollback"])
def test_both_are_refused_while_a_session_works_there(
    api: FakeApi, project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    context = next((project.state_dir / "before").iterdir()).name
    images = ServiceImages(project.state_dir, context, "dev", "web")
    for name in "12":
        digest = "sha256:" + name * 64
        found = ImageRef(repository="localhost:5001/shop/web", tag=name, digest=digest)
        images.add(found, Fingerprint(name, ""))
    with only_session(project):
        assert main([command, "web", "-n", "dev"]) == 3
    assert "another devloop session runs for shop" in capsys.readouterr().err
    somebody(api)
    assert main([command, "web", "-n", "dev"]) == 4
    assert "anna@there" in capsys.readouterr().err
    assert image(api) == "r/web@sha256:1"
    assert LEASE in api.objects


@pytest.mark.usefixtures("api")
def test_what_cannot_be_gone_back_to_is_said(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "-n", "dev"]) == 2
    assert "web has no image to go back to" in capsys.readouterr().err
    assert main(["rollback", "webb", "-n", "dev"]) == 2
    assert "did you mean web?" in capsys.readouterr().err
    assert main(["restore", "webb", "-n", "dev"]) == 2
    assert "did you mean web?" in capsys.readouterr().err
    file = project.file
    file.write_text(file.read_text() + "  api: {build: .}\n")
    assert main(["rollback", "-n", "dev"]) == 2
    assert "name it: devloop rollback SERVICE" in capsys.readouterr().err


def test_who_takes_over_meanwhile_ends_it(api: FakeApi, project: Project) -> None:
    told = DevloopError.of(Code.SAFETY_LEASE, "another devloop session took over deployment/web")
    ref, cancel = WorkloadRef("deployment", "web", "dev"), Cancel()

    def work() -> None:
        with (
            connect(replace(project, namespace="dev")) as connection,
            leases_of(project, connection, [ref], lambda _: None, cancel) as leases,
        ):
            leases._on_lost(told)
            cancel.check()

    with pytest.raises(DevloopError) as caught:
        work()
    assert caught.value is told
    assert LEASE not in api.objects
