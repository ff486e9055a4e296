"""`render`: what a deploy applies, pinned, from the file of images alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from devloop.app.image_file import write_images
from devloop.cli.main import main
from devloop.model import ImageRef

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "a" * 64
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: shop/web:1
          imagePullPolicy: Never
          envFrom: [{configMapRef: {name: c}}]
        - {name: api, image: "api"}
        - {name: proxy, image: "envoy:1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: b}
---
apiVersion: example.com/v1
kind: Thing
metadata: {name: t}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: r}
rules: []
"""
API = WEB.partition("---")[0].replace("web", "api").replace("shop/api:1", "api:dev")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"web": WEB, "api": API}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "k8s.yaml").write_text(text)
    (tmp_path / "devloop.yaml").write_text(
        "version: 1\nname: shop\nservices:\n"
        "  web: {image: shop/web, build: web, deploy: {manifests: [web/k8s.yaml]}}\n"
        "  api: {build: api, deploy: {manifests: [api/k8s.yaml]}}\n"
    )
    images = {
        name: ImageRef(repository=f"r.example/{path}", tag="t", digest=DIGEST)
        for name, path in {"web": "shop/web", "api": "api"}.items()
    }
    write_images(tmp_path / "images.json", images)
    monkeypatch.chdir(tmp_path)
    # Whoever asked a cluster would find out that this is no kubeconfig.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "images.json"))
    return tmp_path


def _rendered(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert main(["render", "--images", "images.json", *argv]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_every_image_of_the_project_is_pinned_and_the_rest_is_as_it_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _rendered(capsys)
    assert [(each["kind"], each["metadata"]["name"]) for each in found] == [
        ("ClusterRole", "r"),
        ("ConfigMap", "c"),
        ("Thing", "t"),
        ("Deployment", "web"),
        ("Deployment", "api"),
    ]
    web = found[3]["spec"]["template"]
    assert [c["image"] for c in web["spec"]["containers"]] == [
        f"r.example/shop/web@{DIGEST}",
        f"r.example/api@{DIGEST}",
        "envoy:1",
    ]
    assert web["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    # A changed ConfigMap is a changed template, as in a deploy; nothing else is devloop's.
    assert list(web["metadata"]["annotations"]) == ["devloop.dev/reads"]
    assert not any("namespace" in each["metadata"] for each in found)
    assert not any("annotations" in each["metadata"] for each in found)


def test_a_namespace_is_written_where_objects_have_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _rendered(capsys, "-n", "shop")
    assert {each["kind"]: each["metadata"].get("namespace") for each in found} == {
        "ClusterRole": None,
        "ConfigMap": "shop",
        "Thing": "shop",
        "Deployment": "shop",
    }


def test_the_same_bytes_wherever_they_go(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["render", "--images", "images.json"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert main([*argv, "-o", "all.yaml", "--output", "json"]) == 0
    assert (project / "all.yaml").read_text() == printed
    summary = json.loads(capsys.readouterr().out)
    assert summary["written"] == "all.yaml"
    assert summary["images"]["web"] == f"r.example/shop/web@{DIGEST}"
    assert main([*argv, "-o", "out"]) == 0
    files = [*sorted((project / "out").glob("*.yaml"))]
    assert sorted(printed.split("---\n")[1:]) == sorted(f.read_text() for f in files)


def test_a_service_brings_those_whose_images_it_runs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [e["metadata"]["name"] for e in _rendered(capsys, "web") if e["kind"] == "Deployment"]
    assert names == ["web", "api"]
    write_images(
        project / "images.json",
        {"web": ImageRef(repository="r.example/shop/web", tag="t", digest=DIGEST)},
    )
    assert main(["render", "--images", "images.json", "web"]) == 2
    assert "images.json has no image of api" in capsys.readouterr().err


def test_what_is_only_built_for_others_is_not_missed_in_the_manifests(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "devloop.yaml"
    (project / "base").mkdir()
    more = "  base: {build: base}\n  tool: {build: base}\n"
    file.write_text(file.read_text().replace("build: web,", "build: web, needs: [base],") + more)
    images = json.loads((project / "images.json").read_text())
    for name in ("base", "tool"):
        ref = f"r.example/{name}@sha256:{'b' * 64}"
        build = {"service": name, "image": f"r.example/{name}", "tag": "t"}
        images["builds"].append({**build, "digest": ref.partition("@")[2], "ref": ref})
    (project / "images.json").write_text(json.dumps(images))
    assert main(["render", "--images", "images.json"]) == 0
    said = capsys.readouterr().err
    assert "no manifest uses the image tool of tool" in said
    assert "of base" not in said


def test_an_image_that_is_in_no_registry_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = {name: ImageRef(repository=name, tag="t") for name in ("web", "api")}
    write_images(project / "images.json", local)
    assert main(["render", "--images", "images.json"]) == 2
    assert "in no registry: web:t" in capsys.readouterr().err


def test_without_images_and_without_a_registry_nothing_is_built(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render"]) == 3
    said = capsys.readouterr()
    assert "registry/unreachable" in said.err
    assert "--images FILE" in said.err
    assert not said.out
