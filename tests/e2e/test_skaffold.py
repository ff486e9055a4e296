"""Projects that have a skaffold.yaml and nothing of devloop's: served, edited, served again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.standing import standing
from tests.support.skaffold_shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

GETTING_STARTED = """\
apiVersion: skaffold/v2beta29
kind: Config
metadata: {name: getting-started}
build:
  artifacts:
    - image: ghcr.io/acme/web
      docker: {buildArgs: {BASE: "{{.BASE}}"}}
deploy: {kubectl: {manifests: [k8s.yaml]}}
"""


def taken_over(workspace: Workspace, skaffold: str) -> dict[str, str]:
    """Make the workspace one of Skaffold; returns what devloop needs in its environment."""
    (workspace.root / "devloop.yaml").unlink()
    workspace.save("skaffold.yaml", skaffold)
    return {"DEVLOOP_REGISTRY": os.environ["DEVLOOP_TEST_REGISTRY"]}


def test_getting_started(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    env = taken_over(workspace, GETTING_STARTED)
    workspace.replace("k8s.yaml", "image: web", "image: ghcr.io/acme/web")
    session = devloop("dev", **env)
    session.finished("ready", seconds=120)
    cluster.serves("v0")

    workspace.version("v1")
    session.finished("ready")
    cluster.serves("v1")
    assert session.of("diagnostic") == []


MODULES = """\
apiVersion: skaffold/v4beta11
kind: Config
metadata: {name: shop}
requires: [{path: api}]
build:
  artifacts:
    - image: web
      docker: {buildArgs: {BASE: "{{.BASE}}", MARK: plain}}
      sync: {manual: [{src: "data/**", dest: .}]}
manifests: {rawYaml: [k8s.yaml]}
profiles:
  - name: marked
    patches: [{op: replace, path: /build/artifacts/image=web/docker/buildArgs/MARK, value: marked}]
"""
API = """\
apiVersion: skaffold/v2beta29
kind: Config
build:
  artifacts:
    - {image: api, requires: [{image: acme/base, alias: FROM_IMAGE}]}
    - {image: acme/base, context: base, docker: {buildArgs: {BASE: "{{.BASE}}"}}}
deploy: {kubectl: {manifests: [api.yaml]}}
"""


def test_modules_a_needed_image_a_profile_and_sync(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    env = taken_over(workspace, MODULES)
    workspace.replace("Dockerfile", "COPY . .", "ARG MARK\nCOPY . .\nRUN touch /app/$MARK")
    workspace.save("data/a.txt", "one")
    workspace.save("api/skaffold.yaml", API)
    workspace.save("api/app.py", workspace.read("app.py"))
    workspace.save("api/Dockerfile", "ARG FROM_IMAGE\nFROM ${FROM_IMAGE}\nCOPY app.py .\n")
    workspace.save(
        "api/base/Dockerfile",
        "ARG BASE\nFROM ${BASE}\nWORKDIR /app\nCOPY *.txt .\nCMD exec python3 app.py\n",
    )
    workspace.save("api/base/one.txt", "one")
    workspace.save("api/api.yaml", workspace.read("k8s.yaml").replace("web", "api"))
    workspace.save(".dockerignore", "api\nskaffold.yaml\n")
    workspace.version("api0", "api/app.py")

    session = devloop("dev", DEVLOOP_PROFILE="marked", **env)
    served = {session.finished("ready", seconds=120)["service"] for _ in range(3)}
    assert served == {"base", "api", "web"}
    cluster.serves("v0")
    cluster.serves("api0", service="api")
    assert "marked" in (cluster.answer("/files") or "")
    before = standing(cluster)

    workspace.version("api1", "api/app.py")
    assert session.finished("ready")["service"] == "api"
    cluster.serves("api1", service="api")

    workspace.save("api/base/two.txt", "two")
    assert [session.finished("ready")["service"] for _ in range(2)] == ["base", "api"]
    assert "two.txt" in (cluster.answer("/files", service="api") or "").split()

    workspace.version("api2", "api/app.py")
    iteration = session.finished("ready")
    assert session.step("sync", iteration)["outcome"] == "done", session.story()
    cluster.serves("api2", service="api")

    workspace.save("data/b.txt", "two")
    assert session.finished("ready")["service"] == "web"
    text = cluster.kubectl("exec", standing(cluster).pod.name, "--", "cat", "/app/data/b.txt")
    assert text == "two"
    assert standing(cluster).pod == before.pod, "the process went on"


# Charts with a chart of their own; a custom builder with a chart that gets parts of the image's
# name; hooks of every kind, among them around a sync. All shapes: tests/bench/skaffold_shapes.py.
@pytest.mark.parametrize("name", ["helm-dependencies", "templated-fields", "lifecycle-hooks"])
def test_a_shape_is_served_and_served_again(
    name: str, devloop: Start, cluster: Cluster, tmp_path: Path
) -> None:
    shape = SHAPES[name]
    root = tmp_path / name
    root.mkdir()
    shape.write(root)
    registry = os.environ["DEVLOOP_TEST_REGISTRY"]
    session = devloop("dev", "--trust", cwd=root, DEVLOOP_REGISTRY=registry, **shape.env)
    session.finished("ready", seconds=120)
    for service, answer in shape.first.items():
        cluster.serves(answer, service=service)

    for edit in shape.edits:
        path = root / edit.file
        path.write_text(path.read_text().replace(edit.old, edit.new))
        session.ready_at_last()
        cluster.serves(edit.served, edit.path, edit.service)

    said = [each for each in session.of("diagnostic") if each["severity"] != "info"]
    assert [each for each in said if each["code"].startswith("config/")] == []
    if name == "lifecycle-hooks":
        steps = [line.split()[0] for line in (root / "steps.log").read_text().splitlines()]
        once = ["pre-build-all", "hook.sh", "built", "pre-render", "post-render", "pre-deploy"]
        assert steps[: len(once) + 1] == [*once, "post-deploy"]
        assert "files hello.txt" in (root / "steps.log").read_text()
        assert cluster.answer("/deployed.txt") == "deployed\n"
