"""What init makes of kustomizations and charts, with scripted programs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from devloop.app.starter.propose import Proposal, Surroundings, propose
from devloop.app.starter.rendered import rendered_workloads
from devloop.app.starter.text import project_text
from devloop.base.process import CannotRun, Completed
from devloop.manifests import tools

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec: {template: {spec: {containers: [{name: web, image: "acme/web:1"}]}}}
"""


MADE = WEB.replace("NAME", "dev-web")
PRINTED = {"kustomize": MADE, "helm": f"---\n# Source: web/templates/web.yaml\n{MADE}"}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both programs print a Deployment `dev-web`."""

    def run(argv: Sequence[str], **_: object) -> Completed:
        if argv[0] not in PRINTED:
            raise CannotRun(argv[0], "No such file or directory", missing=True)
        return Completed(status=0, out=PRINTED[argv[0]], err="")

    monkeypatch.setattr(tools, "capture", run)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    root = tmp_path / "shop"
    write(root, {"Dockerfile": "FROM a\n", ".dockerignore": ""})
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def proposed(root: Path) -> Proposal:
    return propose(root, Surroundings(rendered=rendered_workloads))


def deploy(proposal: Proposal) -> str:
    return project_text(proposal, head="").partition("    deploy:\n")[2]


BASE = {"k8s/base/kustomization.yaml": "resources: [web.yaml]\n"}
OVERLAY = "resources: [../base]\nnamePrefix: dev-\n"


def test_an_overlay_is_taken_in_place_of_its_base(shop: Path) -> None:
    write(shop, {**BASE, "k8s/base/web.yaml": WEB.replace("NAME", "web")})
    write(shop, {"k8s/dev/kustomization.yaml": OVERLAY, "k8s/prod/kustomization.yaml": OVERLAY})
    assert deploy(proposed(shop)) == (
        "      kustomize: k8s/dev  # deployment/dev-web runs acme/web:1\n"
        "# Found, and not made use of:\n#   k8s/prod/ (kustomize)\n"
    )


def test_a_base_is_taken_where_no_overlay_is_for_development(shop: Path) -> None:
    write(shop, {**BASE, "k8s/base/web.yaml": WEB.replace("NAME", "web")})
    write(shop, {"k8s/eu/kustomization.yaml": OVERLAY, "k8s/us/kustomization.yaml": OVERLAY})
    assert "manifests: [k8s/base/web.yaml]" in deploy(proposed(shop))


def test_overlays_of_remote_bases_that_could_all_be_meant_are_a_doubt(shop: Path) -> None:
    remote = OVERLAY.replace("../base", "https://example.test/a?ref=1")
    write(shop, {"k8s/eu/kustomization.yaml": remote, "k8s/us/kustomization.yaml": remote})
    assert "the kustomization could be k8s/eu or k8s/us" in proposed(shop).doubts


def test_a_chart_is_taken_where_there_is_nothing_else(shop: Path) -> None:
    write(shop, {"chart/Chart.yaml": "name: web\n", "chart/templates/web.yaml": "{{ x }}"})
    assert deploy(proposed(shop)) == (
        "      helm: {chart: ./chart}  # deployment/dev-web runs acme/web:1\n"
    )


def test_what_cannot_be_rendered_is_said(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(shop, {"chart/Chart.yaml": "name: web\n"})
    monkeypatch.delitem(PRINTED, "helm")
    (problem,) = (each for each in proposed(shop).unread if "helm is needed" in each)
    assert problem.startswith("chart/: ")
